#include "server/config.h"

#include <cmath>
#include <cstdlib>
#include <functional>
#include <limits>
#include <utility>

#include <CLI/CLI.hpp>

#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "server/version.h"

namespace moesaic {
namespace {
std::string EnvName(const std::string& flag) {
  std::string name = "MOESAIC_";
  for (const char c : flag.substr(2)) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

// Adds flags to one CLI11 app, each also settable by its MOESAIC_ variable.
class Flags {
 public:
  explicit Flags(CLI::App& app) : app_(app) {}

  void Group(std::string name) { group_ = std::move(name); }

  template <typename T>
  CLI::Option* Add(const std::string& name, T& value, const std::string& help) {
    return Finish(name, app_.add_option(name, value, help)->capture_default_str());
  }
  // 0 is written "auto".
  CLI::Option* AddBytes(const std::string& name, int64_t& value, const std::string& help) {
    return Custom(name, help, "SIZE", value == 0 ? "auto" : FormatBytes(value),
                  [&value](const std::string& text) -> absl::Status {
                    if (text == "auto") return absl::OkStatus();
                    MOESAIC_ASSIGN_OR_RETURN(value, ParseByteSize(text));
                    return absl::OkStatus();
                  });
  }
  CLI::Option* AddSeconds(const std::string& name, absl::Duration& value, const std::string& help) {
    return Custom(name, help, "SECONDS", StrCat(absl::ToDoubleSeconds(value)),
                  [&value](const std::string& text) {
                    char* end = nullptr;
                    const double seconds = std::strtod(text.c_str(), &end);
                    if (end == text.c_str() || *end != '\0' || !(seconds >= 0) || seconds > 1e6) {
                      return absl::InvalidArgumentError(
                          StrCat("got \"", text, "\", expected 0 to 1000000 seconds"));
                    }
                    value = absl::Seconds(seconds);
                    return absl::OkStatus();
                  });
  }

  CLI::Option* Custom(const std::string& name,
                      const std::string& help,
                      const std::string& type,
                      const std::string& default_text,
                      std::function<absl::Status(const std::string&)> set) {
    const auto set_or_throw = [name, set = std::move(set)](const std::string& text) {
      const absl::Status status = set(text);
      if (!status.ok()) throw CLI::ValidationError(name, std::string(status.message()));
    };
    return Finish(name, app_.add_option_function<std::string>(name, set_or_throw, help)
                            ->type_name(type)
                            ->default_str(default_text));
  }

 private:
  CLI::Option* Finish(const std::string& name, CLI::Option* option) {
    return option->group(group_)->envname(EnvName(name));
  }

  CLI::App& app_;
  std::string group_;
};

void AddModelFlags(Flags& flags, ServerConfig& config) {
  flags.Group("Model");
  flags.Add("--model", config.model,
            "Hugging Face model folder: config.json, *.safetensors, tokenizer files");
  flags.Add("--served-model-name", config.served_model_name,
            "name that clients ask for; empty: the folder's name");
  flags.Add("--device", config.device, "where the model runs: auto or cpu");
  flags
      .Add("--dtype", config.dtype,
           "of weights, matrix inputs and the KV cache: auto (the checkpoint's), bfloat16, float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32"}));
  flags
      .Add("--isa", config.isa,
           "instruction set of the CPU kernels: auto, portable, avx2, avx512, avx512_bf16")
      ->check(CLI::IsMember({"auto", "portable", "avx2", "avx512", "avx512_bf16"}));
  flags
      .Add("--load-format", config.load_format,
           "auto reads the weights; dummy makes random ones from config.json, for benchmarks")
      ->check(CLI::IsMember({"auto", "dummy"}));
  flags
      .Add("--threads", config.threads,
           "compute threads; 0: one for each core this process may run on")
      ->check(CLI::Range(0, 1024));
}

// "auto", "25%", or bytes.
absl::Status ParseExpertBudget(const std::string& text, ExpertBudget& budget) {
  if (text == "auto") {
    budget = {};
    return absl::OkStatus();
  }
  if (text.ends_with('%')) {
    char* end = nullptr;
    budget.kind = ExpertBudget::Kind::kPercent;
    budget.percent = std::strtod(text.c_str(), &end);
    if (end != text.c_str() + text.size() - 1 || !(budget.percent > 0) || budget.percent > 100) {
      return absl::InvalidArgumentError(
          StrCat("got \"", text, "\", expected more than 0% and at most 100%"));
    }
    return absl::OkStatus();
  }
  budget.kind = ExpertBudget::Kind::kBytes;
  MOESAIC_ASSIGN_OR_RETURN(budget.bytes, ParseByteSize(text));
  return absl::OkStatus();
}

void AddExpertFlags(Flags& flags, ServerConfig& config) {
  flags.Group("Experts");
  flags.Custom("--expert-memory",
               "memory that routed experts run from, e.g. 2GiB or 25% of them; the others wait on "
               "the disk (--pack-dir); auto: all of them, or what this machine can spare",
               "SIZE", "auto", [&config](const std::string& text) {
                 return ParseExpertBudget(text, config.expert_memory);
               });
  flags.Custom("--host-memory",
               "memory that holds packed experts beside --expert-memory, so that they are copied "
               "from there instead of read from the disk",
               "SIZE", "0", [&config](const std::string& text) -> absl::Status {
                 MOESAIC_ASSIGN_OR_RETURN(config.host_memory_bytes, ParseByteSize(text));
                 return absl::OkStatus();
               });
  flags.Add("--pack-dir", config.pack_dir,
            "folder of the packed experts, made at the first start with less than all of them in "
            "memory; empty: moesaic/packs in the user's cache folder");
  flags.Custom("--expert-policy",
               "which experts lose their memory to others: on-demand, fifo, lru or lfu", "NAME",
               std::string(ExpertPolicyName(config.expert_policy)),
               [&config](const std::string& text) -> absl::Status {
                 MOESAIC_ASSIGN_OR_RETURN(config.expert_policy, ParseExpertPolicy(text));
                 if (config.expert_policy == ExpertPolicyKind::kFuture ||
                     config.expert_policy == ExpertPolicyKind::kBelady) {
                   return absl::InvalidArgumentError(
                       StrCat("\"", text,
                              "\" needs to know the future: it is for moesaic-bench "
                              "replay; expected on-demand, fifo, lru or lfu"));
                 }
                 return absl::OkStatus();
               });
  flags.Add("--record-routing", config.record_routing,
            "file to record the gates' choices in, for moesaic-bench replay and --replay-routing; "
            "empty: none");
  flags.Add("--replay-routing", config.replay_routing,
            "benchmarks only: file of recorded or generated choices that replace the gates'; "
            "answers are then not the model's, and say so");
  flags
      .Add("--replay-prefetch-layers", config.oracle_layers,
           "benchmarks only, with --replay-routing: prefetch what so many layers ahead will ask "
           "for, as nothing but a replay can know")
      ->check(CLI::Range(0, 1 << 16));
}

void AddSchedulingFlags(Flags& flags, ServerConfig& config, bool& no_prefix_cache, CLI::App& app) {
  flags.Group("Scheduling");
  flags
      .Add("--max-batch-tokens", config.max_batch_tokens,
           "tokens (prompt chunks and decode together) of one engine step, at most")
      ->check(CLI::Range(1, 1 << 20));
  flags.Add("--max-sequences", config.max_sequences, "sequences running at once, at most")
      ->check(CLI::Range(1, 1 << 16));
  flags
      .Add("--max-queue", config.max_queue,
           "requests waiting behind them; one more is refused with RESOURCE_EXHAUSTED")
      ->check(CLI::Range(0, 1 << 20));
  flags
      .Add("--max-model-len", config.max_model_len,
           "tokens of prompt and output together, at most; 0: what the model supports")
      ->check(CLI::Range(0, 1 << 24));
  flags.AddBytes("--kv-memory", config.kv_memory_bytes,
                 "memory of the KV cache, e.g. 2GiB; auto: enough for --max-sequences of "
                 "--max-model-len, within a quarter of RAM");
  app.add_flag("--no-prefix-cache", no_prefix_cache,
               "do not reuse the KV of prompts that begin alike")
      ->group("Scheduling")
      ->envname("MOESAIC_NO_PREFIX_CACHE");
}

void AddNetworkFlags(Flags& flags, ServerConfig& config) {
  flags.Group("Network");
  flags.Add("--bind", config.bind, "address to listen on; 0.0.0.0: every interface");
  flags.Add("--grpc-port", config.grpc_port, "port of the gRPC services; 0: a free one")
      ->check(CLI::Range(0, 65535));
  flags
      .Add("--metrics-port", config.metrics_port,
           "port of HTTP /metrics and /healthz; 0: a free one")
      ->check(CLI::Range(0, 65535));
  flags.Add("--port-file", config.port_file,
            "file to write \"grpc=PORT\" and \"metrics=PORT\" to once requests are served");
  flags.AddBytes("--max-receive-message", config.max_receive_message_bytes,
                 "largest request message, in bytes");
  flags.AddBytes("--max-send-message", config.max_send_message_bytes,
                 "largest response message, in bytes");
  flags.AddSeconds("--keepalive-time", config.keepalive_time,
                   "seconds of silence after which a client is pinged");
  flags.AddSeconds("--keepalive-timeout", config.keepalive_timeout,
                   "seconds without an answer to a ping after which a connection is closed");
  flags.AddSeconds("--keepalive-min-client-interval", config.keepalive_min_client_interval,
                   "clients that ping more often than this many seconds are disconnected");
  flags.AddSeconds("--max-connection-age", config.max_connection_age,
                   "seconds after which a connection is asked to end; 0: never");
  flags.AddSeconds("--max-connection-age-grace", config.max_connection_age_grace,
                   "seconds that its running requests then get");
  flags.AddSeconds("--write-timeout", config.write_timeout,
                   "seconds without progress after which a client that does not read its stream "
                   "loses it; output is merged until then");
  flags.AddBytes("--max-stream-pending", config.max_stream_pending_bytes,
                 "unread output of one stream, in bytes, over which it is ended");
}

void AddOperationFlags(Flags& flags, ServerConfig& config, std::string& log_format) {
  flags.Group("Operation");
  flags.AddSeconds("--lame-duck", config.lame_duck,
                   "seconds after SIGTERM in which requests are still accepted while health says "
                   "NOT_SERVING, for load balancers to notice");
  flags.AddSeconds("--drain-timeout", config.drain_timeout,
                   "seconds that running requests then get before they are cancelled");
  flags.Add("--log-format", log_format, "text or json, one line per event on standard error")
      ->check(CLI::IsMember({"text", "json"}));
}

// CLI11 says "INI was not able to parse NAME" of a name it does not know.
std::string UnknownName(std::string what) {
  constexpr std::string_view kPrefix = "INI was not able to parse ";
  if (!what.starts_with(kPrefix)) return what;
  return StrCat("there is no flag \"", what.substr(kPrefix.size()), "\"");
}

absl::Status Validate(const ServerConfig& config) {
  if (config.model.empty()) {
    return absl::InvalidArgumentError("--model is required: the folder of a model");
  }
  if (config.device != "auto" && config.device != "cpu") {
    const bool cuda = config.device.rfind("cuda", 0) == 0;
    return absl::InvalidArgumentError(StrCat(
        "--device: got \"", config.device, "\", ",
        cuda ? "but this build has no CUDA backend; use --device cpu" : "expected auto or cpu"));
  }
  const std::pair<const char*, int64_t> sizes[] = {
      {"--max-receive-message", config.max_receive_message_bytes},
      {"--max-send-message", config.max_send_message_bytes}};
  for (const auto& [flag, bytes] : sizes) {
    if (bytes < 1024 || bytes > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(StrCat(flag, ": expected 1 KiB to 2 GiB"));
    }
  }
  if (config.max_batch_tokens < config.max_sequences) {
    return absl::InvalidArgumentError(
        StrCat("--max-batch-tokens: got ", config.max_batch_tokens,
               ", expected at least --max-sequences (", config.max_sequences,
               "): each running sequence takes a token of every step"));
  }
  if (config.max_stream_pending_bytes < 1024) {
    return absl::InvalidArgumentError("--max-stream-pending: expected at least 1 KiB");
  }
  if (config.write_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("--write-timeout: expected more than 0 seconds");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> ParseByteSize(std::string_view text) {
  const std::string copy(text);
  char* end = nullptr;
  const double number = std::strtod(copy.c_str(), &end);
  const bool has_number = end != copy.c_str() && std::isdigit(static_cast<unsigned char>(copy[0]));
  std::string unit(end);
  unit.erase(0, unit.find_first_not_of(' '));
  static constexpr std::pair<std::string_view, double> kUnits[] = {{"", 1},
                                                                   {"B", 1},
                                                                   {"KB", 1e3},
                                                                   {"MB", 1e6},
                                                                   {"GB", 1e9},
                                                                   {"TB", 1e12},
                                                                   {"KiB", 1024.0},
                                                                   {"MiB", 1048576.0},
                                                                   {"GiB", 1073741824.0},
                                                                   {"TiB", 1099511627776.0},
                                                                   {"K", 1024.0},
                                                                   {"M", 1048576.0},
                                                                   {"G", 1073741824.0}};
  for (const auto& [name, factor] : kUnits) {
    if (!has_number || unit != name) continue;
    const double bytes = std::floor(number * factor);
    if (!(bytes >= 0) || bytes > 9e18) break;
    return static_cast<int64_t>(bytes);
  }
  return absl::InvalidArgumentError(
      StrCat("got \"", copy.substr(0, 40), "\", expected a size such as 512MiB or 2GiB"));
}

absl::StatusOr<ServerCommand> ParseServerCommand(int argc, const char* const* argv) {
  ServerCommand command;
  std::string log_format = "text";
  bool health_check = false;
  bool no_prefix_cache = false;

  CLI::App app(
      "Serves a Mixture-of-Experts model over gRPC (moesaic.v1.Inference and the Open Inference "
      "Protocol).\nEvery flag can also stand in a --config file (flag-name = value) or in the "
      "environment\n(MOESAIC_FLAG_NAME); the command line wins over the file, the file over the "
      "environment.",
      "moesaic-server");
  app.set_version_flag("--version", StrCat("moesaic-server ", kVersion));
  app.set_config("--config", "", "file of flags, one \"name = value\" a line");
  app.allow_config_extras(CLI::config_extras_mode::error);
  app.get_formatter()->column_width(36);
  Flags flags(app);
  AddModelFlags(flags, command.config);
  AddExpertFlags(flags, command.config);
  AddSchedulingFlags(flags, command.config, no_prefix_cache, app);
  AddNetworkFlags(flags, command.config);
  AddOperationFlags(flags, command.config, log_format);
  app.add_flag("--healthcheck", health_check,
               "ask the server at --bind and --grpc-port for its health, print it, and exit 0 when "
               "it serves")
      ->group("Operation");

  // CLI11 reports by exceptions; they end here.
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return ServerCommand{.kind = ServerCommand::Kind::kPrint, .config = {}, .text = app.help()};
  } catch (const CLI::CallForVersion&) {
    return ServerCommand{.kind = ServerCommand::Kind::kPrint,
                         .config = {},
                         .text = StrCat("moesaic-server ", kVersion, "\n")};
  } catch (const CLI::ConfigError& error) {
    return absl::InvalidArgumentError(StrCat("--config ", app.get_config_ptr()->as<std::string>(),
                                             ": ", UnknownName(error.what()),
                                             "\nRun with --help for the flags."));
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(StrCat(error.what(), "\nRun with --help for the flags."));
  }
  command.config.prefix_cache = !no_prefix_cache;
  command.config.log_json = log_format == "json";
  if (health_check) {
    command.kind = ServerCommand::Kind::kHealthCheck;
    return command;
  }
  if (absl::Status status = Validate(command.config); !status.ok()) return status;
  return command;
}

}  // namespace moesaic
