# One helper per kind of target; every source file of the project is in one of these.

# moesaic_library(NAME base SRCS a.cc b.cc DEPS absl::status ...) makes the static library moesaic_<NAME>.
function(moesaic_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(moesaic_${ARG_NAME} STATIC ${ARG_SRCS})
    target_link_libraries(moesaic_${ARG_NAME} PUBLIC ${ARG_DEPS} PRIVATE moesaic_options)
    target_include_directories(moesaic_${ARG_NAME} PUBLIC ${CMAKE_SOURCE_DIR})
  else()
    add_library(moesaic_${ARG_NAME} INTERFACE)
    target_link_libraries(moesaic_${ARG_NAME} INTERFACE ${ARG_DEPS})
    target_include_directories(moesaic_${ARG_NAME} INTERFACE ${CMAKE_SOURCE_DIR})
  endif()
endfunction()

# moesaic_binary(NAME moesaic-cli SRCS ... DEPS ...) makes build/bin/<NAME>.
function(moesaic_binary)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_link_libraries(${ARG_NAME} PRIVATE moesaic_options ${ARG_DEPS})
endfunction()

# moesaic_test(NAME base/thread_pool_test DEPS ... LABELS tsan) builds tests/<NAME>.cc with GoogleTest and
# registers it with CTest. LABELS choose it for a sanitizer run: "tsan" marks a test of concurrency.
function(moesaic_test)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;LABELS" ${ARGN})
  string(REPLACE "/" "_" target ${ARG_NAME})
  add_executable(${target} ${CMAKE_SOURCE_DIR}/tests/${ARG_NAME}.cc ${ARG_SRCS})
  target_link_libraries(${target} PRIVATE moesaic_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  target_compile_definitions(${target} PRIVATE MOESAIC_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${ARG_NAME} COMMAND ${target})
  set_tests_properties(${ARG_NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT 600)
  # All tests of one label build as one target: tests_labelled_tsan.
  foreach(label ${ARG_LABELS})
    if(NOT TARGET tests_labelled_${label})
      add_custom_target(tests_labelled_${label})
    endif()
    add_dependencies(tests_labelled_${label} ${target})
  endforeach()
endfunction()

# moesaic_fuzzer(NAME checkpoint/safetensors_fuzzer DEPS ...) builds tests/<NAME>.cc as a libFuzzer target in
# build/fuzz; its seeds are in tests/<folder>/corpus/<name>.
function(moesaic_fuzzer)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  if(NOT MOESAIC_FUZZERS)
    return()
  endif()
  get_filename_component(target ${ARG_NAME} NAME)
  add_executable(${target} ${CMAKE_SOURCE_DIR}/tests/${ARG_NAME}.cc ${ARG_SRCS})
  target_link_libraries(${target} PRIVATE moesaic_options ${ARG_DEPS})
  target_compile_definitions(${target} PRIVATE MOESAIC_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  target_compile_options(${target} PRIVATE -fsanitize=fuzzer)
  target_link_options(${target} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
endfunction()

# moesaic_benchmark(NAME kernels/linear_benchmark DEPS ...) builds benchmarks/<NAME>.cc with Google Benchmark.
function(moesaic_benchmark)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  string(REPLACE "/" "_" target ${ARG_NAME})
  add_executable(${target} ${CMAKE_SOURCE_DIR}/benchmarks/${ARG_NAME}.cc ${ARG_SRCS})
  target_link_libraries(${target} PRIVATE moesaic_options ${ARG_DEPS} benchmark::benchmark_main)
  target_compile_definitions(${target} PRIVATE MOESAIC_SOURCE_DIR="${CMAKE_SOURCE_DIR}")
  set_target_properties(${target} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/benchmarks)
endfunction()

# moesaic_proto(NAME inference_proto PROTOS moesaic/v1/inference.proto GRPC) makes moesaic_<NAME> from files under
# proto/; generated headers are included as "proto/...pb.h".
function(moesaic_proto)
  cmake_parse_arguments(ARG "GRPC" "NAME" "PROTOS" ${ARGN})
  set(generated_dir ${CMAKE_BINARY_DIR}/generated)
  file(MAKE_DIRECTORY ${generated_dir})
  set(sources)
  foreach(proto ${ARG_PROTOS})
    string(REGEX REPLACE "\\.proto$" "" stem ${proto})
    set(outputs ${generated_dir}/proto/${stem}.pb.cc ${generated_dir}/proto/${stem}.pb.h)
    set(grpc_args)
    if(ARG_GRPC)
      list(APPEND outputs ${generated_dir}/proto/${stem}.grpc.pb.cc ${generated_dir}/proto/${stem}.grpc.pb.h)
      set(grpc_args --grpc_out=${generated_dir} --plugin=protoc-gen-grpc=$<TARGET_FILE:gRPC::grpc_cpp_plugin>)
    endif()
    add_custom_command(
      OUTPUT ${outputs}
      COMMAND protobuf::protoc --proto_path=${CMAKE_SOURCE_DIR} --cpp_out=${generated_dir} ${grpc_args}
              proto/${stem}.proto
      WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
      DEPENDS ${CMAKE_SOURCE_DIR}/proto/${stem}.proto
      COMMENT "Generating ${stem}.pb")
    list(APPEND sources ${outputs})
  endforeach()
  add_library(moesaic_${ARG_NAME} STATIC ${sources})
  target_include_directories(moesaic_${ARG_NAME} SYSTEM PUBLIC ${generated_dir})
  target_link_libraries(moesaic_${ARG_NAME} PUBLIC protobuf::libprotobuf)
  if(ARG_GRPC)
    target_link_libraries(moesaic_${ARG_NAME} PUBLIC gRPC::grpc++)
  endif()
endfunction()
