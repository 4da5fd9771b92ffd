#include "server/server.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/time/clock.h"
#include "base/isa.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "engine/load_engine.h"

namespace moesaic {
namespace {

// After everything was cancelled, how long the calls may take to say so.
constexpr absl::Duration kFinishTime = absl::Seconds(2);

int AvailableThreads() {
  cpu_set_t cpus;
  if (sched_getaffinity(0, sizeof(cpus), &cpus) == 0) return CPU_COUNT(&cpus);
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// A row of logits is vocabulary-sized, so only as many as decode needs; log-probabilities of a
// prompt come in pieces of this size.
int32_t MaxLogitsRows(const ServerConfig& config) { return std::max(config.max_sequences, 16); }

DTypeChoice ToDTypeChoice(const std::string& name) {
  if (name == "bfloat16") return DTypeChoice::kBFloat16;
  if (name == "float32") return DTypeChoice::kFloat32;
  return DTypeChoice::kAuto;
}

std::string PartialPortFile(const std::string& port_file) { return port_file + ".partial"; }

// Tries what Server::WritePortFile will do, and leaves nothing behind.
absl::Status CheckPortFile(const std::string& port_file) {
  if (port_file.empty()) return absl::OkStatus();
  std::error_code error;
  if (std::filesystem::is_directory(port_file, error)) {
    return absl::InvalidArgumentError(StrCat("--port-file: ", port_file, " is a folder"));
  }
  const std::string partial = PartialPortFile(port_file);
  if (!std::ofstream(partial)) {
    return absl::UnavailableError(
        StrCat("--port-file: cannot write ", partial, ": ", std::strerror(errno)));
  }
  std::filesystem::remove(partial, error);
  return absl::OkStatus();
}

}  // namespace

Server::Server(const ServerConfig& config)
    : config_(config),
      admission_(StreamOptions{.max_pending_bytes = config.max_stream_pending_bytes,
                               .write_timeout = config.write_timeout},
                 waker_) {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const ServerConfig& config) {
  // Now, not after minutes of loading.
  MOESAIC_RETURN_IF_ERROR(CheckPortFile(config.port_file));
  std::unique_ptr<Server> server(new Server(config));
  MOESAIC_ASSIGN_OR_RETURN(server->grpc_, GrpcServer::Start(config, server->admission_));
  Server* raw = server.get();
  const MetricsEndpoint::Pages pages{
      .metrics = [raw] { return HttpReply{.status = 200, .body = raw->metrics_.Render()}; },
      .health =
          [raw] {
            if (raw->admission_.serving()) return HttpReply{.status = 200, .body = "serving\n"};
            return HttpReply{.status = 503,
                             .body = raw->admission_.draining() ? "draining\n" : "loading\n"};
          }};
  MOESAIC_ASSIGN_OR_RETURN(server->http_,
                           MetricsEndpoint::Start(config.bind, config.metrics_port, pages));
  spdlog::info("listening bind={} grpc_port={} metrics_port={}", config.bind, server->grpc_port(),
               server->metrics_port());
  return server;
}

absl::Status Server::LoadModel() {
  const std::filesystem::path folder(config_.model);
  const absl::Time start = absl::Now();
  MOESAIC_ASSIGN_OR_RETURN(const Isa isa, ParseIsa(config_.isa));
  pool_ = std::make_unique<ThreadPool>(config_.threads > 0 ? config_.threads : AvailableThreads());

  ServedModel served;
  served.name = ServedModelName(config_.served_model_name, folder);
  MOESAIC_ASSIGN_OR_RETURN(served.tokenizer, LoadTokenizer(folder));
  MOESAIC_ASSIGN_OR_RETURN(served.chat_template, LoadChatTemplate(folder));
  MOESAIC_ASSIGN_OR_RETURN(
      served.engine,
      LoadEngine(ModelOptions{.path = folder,
                              .dtype = ToDTypeChoice(config_.dtype),
                              .load_format = config_.load_format == "dummy" ? LoadFormat::kDummy
                                                                            : LoadFormat::kAuto},
                 ExpertTierOptions{.expert_memory = config_.expert_memory,
                                   .host_memory = config_.host_memory_bytes,
                                   .pack_dir = config_.pack_dir,
                                   .policy = config_.expert_policy},
                 EngineOptions{.max_batch_tokens = config_.max_batch_tokens,
                               .max_logits_rows = MaxLogitsRows(config_),
                               .max_sequences = config_.max_sequences,
                               .max_queue = config_.max_queue,
                               .max_model_len = config_.max_model_len,
                               .kv_memory_bytes = config_.kv_memory_bytes,
                               .prefix_cache = config_.prefix_cache,
                               .routing = {.record = config_.record_routing,
                                           .replay = config_.replay_routing,
                                           .oracle_layers = config_.oracle_layers}},
                 isa, *pool_, metrics_));
  const Model& model = served.engine->model();
  served.config = model.config();
  served.dtype = model.dtype();
  served.weight_bytes = model.packed_bytes();
  served.limits.vocab_size = served.config.vocab_size;
  served.limits.max_n = std::min(served.limits.max_n, config_.max_sequences);
  MOESAIC_ASSIGN_OR_RETURN(served.defaults, LoadGenerationDefaults(folder, served.limits));
  spdlog::info(
      "loaded model={} architecture={} dtype={} weights={} isa={} threads={} max_model_len={} "
      "tokenizer={} seconds={:.1f}",
      served.name, served.config.architecture, std::string(DTypeName(served.dtype)),
      FormatBytes(static_cast<uint64_t>(served.weight_bytes)), std::string(IsaName(isa)),
      pool_->num_threads(), served.engine->max_model_len(),
      served.tokenizer != nullptr ? "yes" : "no", absl::ToDoubleSeconds(absl::Now() - start));
  return Serve(std::move(served));
}

absl::Status Server::Serve(ServedModel model) {
  model_ = std::make_unique<ServedModel>(std::move(model));
  admission_.Serve(*model_, config_.max_sequences, config_.max_queue);
  grpc_->SetServing(true);
  spdlog::info("serving model={} grpc={}:{}", model_->name, config_.bind, grpc_port());
  return WritePortFile();
}

absl::Status Server::WritePortFile() const {
  if (config_.port_file.empty()) return absl::OkStatus();
  // Renamed into place, so that who waits for the file never reads half of it.
  const std::string partial = PartialPortFile(config_.port_file);
  {
    std::ofstream file(partial);
    file << "grpc=" << grpc_port() << "\nmetrics=" << metrics_port() << "\n";
    if (!file.flush()) return absl::UnavailableError(StrCat("--port-file: cannot write ", partial));
  }
  std::error_code error;
  std::filesystem::rename(partial, config_.port_file, error);
  if (error) {
    return absl::UnavailableError(
        StrCat("--port-file: cannot write ", config_.port_file, ": ", error.message()));
  }
  return absl::OkStatus();
}

void Server::Shutdown() {
  if (std::exchange(shut_down_, true)) return;
  grpc_->SetServing(false);
  if (config_.lame_duck > absl::ZeroDuration() && model_ != nullptr) {
    spdlog::info("lame duck: still serving for {} s", absl::ToDoubleSeconds(config_.lame_duck));
    absl::SleepFor(config_.lame_duck);
  }
  admission_.StartDraining();
  if (model_ != nullptr) {
    const EngineLoad load = model_->engine->load();
    spdlog::info("draining running={} waiting={} timeout_s={}", load.running, load.waiting,
                 absl::ToDoubleSeconds(config_.drain_timeout));
    // Returns early when nothing is left; cancels the rest at the deadline.
    model_->engine->Drain(absl::Now() + config_.drain_timeout);
  }
  grpc_->Shutdown(absl::Now() + kFinishTime);
  spdlog::info("drained");
}

Server::~Server() {
  if (grpc_ != nullptr) Shutdown();
}

}  // namespace moesaic
