#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "engine/expert_budget.h"

namespace moesaic {

// Everything an operator can set, with its default; server/config.cc is the only place that parses
// and checks it.
struct ServerConfig {
  // Model.
  std::string model;                 // folder
  std::string served_model_name;     // empty: the folder's name
  std::string device = "auto";       // auto, cpu
  std::string dtype = "auto";        // auto, bfloat16, float32
  std::string isa = "auto";          // auto, portable, avx2, avx512, avx512_bf16
  std::string load_format = "auto";  // auto, dummy
  int32_t threads = 0;               // 0: every core this process may run on

  // Experts.
  ExpertBudget expert_memory;
  int64_t host_memory_bytes = 0;
  std::string pack_dir;  // empty: DefaultPackDir()
  ExpertPolicyKind expert_policy = ExpertPolicyKind::kLfu;
  std::string record_routing;  // files
  std::string replay_routing;
  int32_t oracle_layers = 0;

  // Scheduling.
  int32_t max_batch_tokens = 2048;
  int32_t max_sequences = 64;
  int32_t max_queue = 256;
  int32_t max_model_len = 0;    // 0: the model's
  int64_t kv_memory_bytes = 0;  // 0: chosen by the engine
  bool prefix_cache = true;

  // Doors.
  std::string bind = "127.0.0.1";
  int32_t grpc_port = 8001;
  int32_t metrics_port = 8002;
  std::string port_file;
  int64_t max_receive_message_bytes = int64_t{16} << 20;
  int64_t max_send_message_bytes = int64_t{64} << 20;
  absl::Duration keepalive_time = absl::Seconds(60);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  absl::Duration keepalive_min_client_interval = absl::Seconds(10);
  absl::Duration max_connection_age;  // 0: unlimited
  absl::Duration max_connection_age_grace = absl::Seconds(60);

  // Slow readers.
  absl::Duration write_timeout = absl::Seconds(30);
  int64_t max_stream_pending_bytes = int64_t{4} << 20;

  // Shutdown.
  absl::Duration lame_duck = absl::Seconds(0);
  absl::Duration drain_timeout = absl::Seconds(30);

  bool log_json = false;
};

struct ServerCommand {
  enum class Kind { kServe, kHealthCheck, kPrint } kind = Kind::kServe;
  ServerConfig config;
  std::string text;  // of kPrint: --help or --version
};

// The command line, then a file (--config), then MOESAIC_* of the environment, in that order of
// precedence. InvalidArgument with a message for the operator.
absl::StatusOr<ServerCommand> ParseServerCommand(int argc, const char* const* argv);

// "2GiB", "512 MiB", "1.5GB", "4096": bytes. InvalidArgument for anything else.
absl::StatusOr<int64_t> ParseByteSize(std::string_view text);

}  // namespace moesaic
