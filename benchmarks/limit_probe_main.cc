// Measures what the machine can do, for benchmarks that alternate slices of their own with the
// limit's: reads one command a line from standard input ("read 200" or "compute 200", milliseconds)
// and answers each with one line of JSON. Without --slices it measures each once and ends.

#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

#include "CLI/CLI.hpp"
#include "absl/strings/str_format.h"
#include "benchmarks/limit_probe.h"

int main(int argc, char** argv) {
  int threads = static_cast<int>(std::thread::hardware_concurrency());
  int read_mib = 1024;
  std::string isa_name = "auto";
  bool slices = false;
  CLI::App app("Measures read bandwidth and arithmetic peak of this machine.");
  app.add_option("--threads", threads, "Threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--read-mib", read_mib, "Memory that is read, in MiB")
      ->check(CLI::Range(16, 65536))
      ->capture_default_str();
  app.add_option("--isa", isa_name, "auto, portable, avx2, avx512 or avx512_bf16");
  app.add_flag("--slices", slices, "Obey commands from standard input");
  CLI11_PARSE(app, argc, argv);

  const absl::StatusOr<moesaic::Isa> isa = moesaic::ParseIsa(isa_name);
  if (!isa.ok()) {
    std::cerr << isa.status().message() << "\n";
    return 1;
  }
  moesaic::ThreadPool pool(threads);
  auto probe = moesaic::LimitProbe::Create(pool, *isa, int64_t{read_mib} << 20);
  if (!probe.ok()) {
    std::cerr << probe.status().message() << "\n";
    return 1;
  }

  const auto measure = [&](const std::string& what, int milliseconds) {
    const absl::Duration slice = absl::Milliseconds(milliseconds);
    if (what == "read") {
      absl::PrintF("{\"read_gb_per_s\": %.3f}\n", (*probe)->ReadBytesPerSecond(slice) / 1e9);
    } else if (what == "compute") {
      const double bfloat16 = (*probe)->FlopsPerSecond(moesaic::DType::kBFloat16, slice / 2);
      const double float32 = (*probe)->FlopsPerSecond(moesaic::DType::kFloat32, slice / 2);
      absl::PrintF("{\"bfloat16_gflops\": %.1f, \"float32_gflops\": %.1f}\n", bfloat16 / 1e9,
                   float32 / 1e9);
    } else {
      absl::PrintF("{\"error\": \"neither read nor compute\"}\n");
    }
    std::fflush(stdout);
  };
  if (!slices) {
    measure("read", 500);
    measure("compute", 500);
    return 0;
  }
  std::string what;
  for (int milliseconds = 0; std::cin >> what >> milliseconds;) measure(what, milliseconds);
  return 0;
}
