#include "server/kserve_service.h"

#include "base/status_macros.h"
#include "server/grpc_status.h"
#include "server/kserve_codec.h"
#include "server/kserve_infer_reactor.h"
#include "server/kserve_stream_reactor.h"
#include "server/version.h"

namespace moesaic {
namespace {

// Triton's clients look here for what a server offers beyond the protocol.
constexpr const char* kExtensions[] = {"model_repository", "model_configuration", "statistics",
                                       "parameters", "binary_tensor_data"};

grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* context, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

void Encode(const RequestStatistics::Duration& duration, inference::StatisticDuration* message) {
  message->set_count(duration.count);
  message->set_ns(duration.ns);
}

}  // namespace

absl::StatusOr<const ServedModel*> KserveService::FindModel(const std::string& name,
                                                            const std::string& version) const {
  MOESAIC_ASSIGN_OR_RETURN(const ServedModel* model, admission_.FindModel(name));
  MOESAIC_RETURN_IF_ERROR(CheckModelVersion(version));
  return model;
}

KserveService::Reactor* KserveService::ServerLive(Context* context,
                                                  const inference::ServerLiveRequest*,
                                                  inference::ServerLiveResponse* response) {
  response->set_live(true);
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::ServerReady(Context* context,
                                                   const inference::ServerReadyRequest*,
                                                   inference::ServerReadyResponse* response) {
  response->set_ready(admission_.serving());
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::ModelReady(Context* context,
                                                  const inference::ModelReadyRequest* request,
                                                  inference::ModelReadyResponse* response) {
  response->set_ready(admission_.serving() && FindModel(request->name(), request->version()).ok());
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::ServerMetadata(Context* context,
                                                      const inference::ServerMetadataRequest*,
                                                      inference::ServerMetadataResponse* response) {
  response->set_name("moesaic");
  response->set_version(kVersion);
  for (const char* extension : kExtensions) response->add_extensions(extension);
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::ModelMetadata(Context* context,
                                                     const inference::ModelMetadataRequest* request,
                                                     inference::ModelMetadataResponse* response) {
  const auto model = FindModel(request->name(), request->version());
  if (model.ok()) *response = DescribeModel(**model);
  return Reply(context, model.status());
}

KserveService::Reactor* KserveService::ModelInfer(Context* context,
                                                  const inference::ModelInferRequest* request,
                                                  inference::ModelInferResponse* response) {
  return new KserveInferReactor(*request, *response, admission_, *context);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
KserveService::ModelStreamInfer(Context* context) {
  return new KserveStreamReactor(admission_, *context);
}

KserveService::Reactor* KserveService::ModelConfig(Context* context,
                                                   const inference::ModelConfigRequest* request,
                                                   inference::ModelConfigResponse* response) {
  const auto model = FindModel(request->name(), request->version());
  if (model.ok()) *response->mutable_config() = DescribeModelConfig(**model);
  return Reply(context, model.status());
}

void KserveService::Describe(const RequestStatistics& statistics,
                             inference::ModelStatistics& message) const {
  message.set_last_inference(static_cast<uint64_t>(statistics.last_inference_ms));
  message.set_inference_count(statistics.success.count);
  message.set_execution_count(statistics.success.count);
  inference::InferStatistics& stats = *message.mutable_inference_stats();
  Encode(statistics.success, stats.mutable_success());
  Encode(statistics.failure, stats.mutable_fail());
  // What Triton splits by pipeline stage is split here at the first token.
  Encode(statistics.first_token, stats.mutable_queue());
  Encode(statistics.decode, stats.mutable_compute_infer());
}

KserveService::Reactor* KserveService::ModelStatistics(
    Context* context,
    const inference::ModelStatisticsRequest* request,
    inference::ModelStatisticsResponse* response) {
  const auto model = FindModel(request->name(), request->version());
  if (model.ok()) {
    inference::ModelStatistics& message = *response->add_model_stats();
    message.set_name((*model)->name);
    message.set_version(kModelVersion);
    Describe(admission_.statistics(), message);
  }
  return Reply(context, model.status());
}

KserveService::Reactor* KserveService::RepositoryIndex(
    Context* context,
    const inference::RepositoryIndexRequest* request,
    inference::RepositoryIndexResponse* response) {
  const auto model = admission_.FindModel("");
  if (model.ok() && (admission_.serving() || !request->ready())) {
    auto* entry = response->add_models();
    entry->set_name((*model)->name);
    entry->set_version(kModelVersion);
    entry->set_state(admission_.serving() ? "READY" : "UNAVAILABLE");
    if (admission_.draining()) entry->set_reason("the server is shutting down");
  }
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::SystemSharedMemoryStatus(
    Context* context,
    const inference::SystemSharedMemoryStatusRequest*,
    inference::SystemSharedMemoryStatusResponse*) {
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::SystemSharedMemoryUnregister(
    Context* context,
    const inference::SystemSharedMemoryUnregisterRequest*,
    inference::SystemSharedMemoryUnregisterResponse*) {
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::CudaSharedMemoryStatus(
    Context* context,
    const inference::CudaSharedMemoryStatusRequest*,
    inference::CudaSharedMemoryStatusResponse*) {
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::CudaSharedMemoryUnregister(
    Context* context,
    const inference::CudaSharedMemoryUnregisterRequest*,
    inference::CudaSharedMemoryUnregisterResponse*) {
  return Reply(context, absl::OkStatus());
}

KserveService::Reactor* KserveService::RepositoryModelLoad(
    Context* context,
    const inference::RepositoryModelLoadRequest*,
    inference::RepositoryModelLoadResponse*) {
  return Reply(context,
               absl::UnimplementedError("RepositoryModelLoad: models are not loaded by request: a "
                                        "server serves the one of its --model"));
}

KserveService::Reactor* KserveService::RepositoryModelUnload(
    Context* context,
    const inference::RepositoryModelUnloadRequest*,
    inference::RepositoryModelUnloadResponse*) {
  return Reply(context,
               absl::UnimplementedError(
                   "RepositoryModelUnload: models are not unloaded by request: stop the server"));
}

KserveService::Reactor* KserveService::SystemSharedMemoryRegister(
    Context* context,
    const inference::SystemSharedMemoryRegisterRequest*,
    inference::SystemSharedMemoryRegisterResponse*) {
  return Reply(context,
               absl::UnimplementedError(
                   "SystemSharedMemoryRegister: shared memory is not offered: send the tensors"));
}

KserveService::Reactor* KserveService::CudaSharedMemoryRegister(
    Context* context,
    const inference::CudaSharedMemoryRegisterRequest*,
    inference::CudaSharedMemoryRegisterResponse*) {
  return Reply(context,
               absl::UnimplementedError(
                   "CudaSharedMemoryRegister: shared memory is not offered: send the tensors"));
}

KserveService::Reactor* KserveService::TraceSetting(Context* context,
                                                    const inference::TraceSettingRequest*,
                                                    inference::TraceSettingResponse*) {
  return Reply(context, absl::UnimplementedError("TraceSetting: there are no traces to set"));
}

KserveService::Reactor* KserveService::LogSettings(Context* context,
                                                   const inference::LogSettingsRequest*,
                                                   inference::LogSettingsResponse*) {
  return Reply(context, absl::UnimplementedError("LogSettings: logging is not set by request"));
}

}  // namespace moesaic
