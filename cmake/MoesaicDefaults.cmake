# Compiler settings shared by every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

find_program(MOESAIC_CCACHE ccache)
if(MOESAIC_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${MOESAIC_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${MOESAIC_CCACHE})
endif()

# Held by every target of ours, and by none of the packages'.
add_library(moesaic_options INTERFACE)
target_compile_options(moesaic_options INTERFACE -Wall -Wextra -Werror)
target_include_directories(moesaic_options INTERFACE ${CMAKE_SOURCE_DIR})
if(MOESAIC_SANITIZE)
  target_compile_options(moesaic_options INTERFACE -fsanitize=${MOESAIC_SANITIZE}
                                                   -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(moesaic_options INTERFACE -fsanitize=${MOESAIC_SANITIZE})
endif()
if(MOESAIC_FUZZERS)
  # Coverage of our own code for libFuzzer; the fuzzer's main comes with moesaic_fuzzer.
  target_compile_options(moesaic_options INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(moesaic_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# GCC warns that ThreadSanitizer cannot follow the fences of Boost.Asio, which guard nothing of ours.
if(MOESAIC_SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(moesaic_options INTERFACE -Wno-tsan)
endif()
