#pragma once

#include "proto/moesaic/v1/inference.grpc.pb.h"
#include "server/admission.h"

namespace moesaic {

// moesaic.v1.Inference. Owner: GrpcServer. Thread: gRPC's. `admission` must outlive it.
class InferenceService final : public v1::Inference::CallbackService {
 public:
  InferenceService(Admission& admission, int64_t max_message_bytes)
      : admission_(admission), max_message_bytes_(max_message_bytes) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Generate(
      grpc::CallbackServerContext* context, const v1::GenerateRequest* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* context,
                                     const v1::TokenizeRequest* request,
                                     v1::TokenizeResponse* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* context,
                                       const v1::DetokenizeRequest* request,
                                       v1::DetokenizeResponse* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(grpc::CallbackServerContext* context,
                                         const v1::GetModelInfoRequest* request,
                                         v1::GetModelInfoResponse* response) override;
  grpc::ServerUnaryReactor* GetLoad(grpc::CallbackServerContext* context,
                                    const v1::GetLoadRequest* request,
                                    v1::GetLoadResponse* response) override;

 private:
  absl::Status EncodeText(const v1::TokenizeRequest& request, v1::TokenizeResponse& response) const;
  absl::Status DecodeIds(const v1::DetokenizeRequest& request,
                         v1::DetokenizeResponse& response) const;
  absl::Status DescribeModel(const v1::GetModelInfoRequest& request,
                             v1::GetModelInfoResponse& response) const;
  absl::Status DescribeLoad(v1::GetLoadResponse& response) const;

  Admission& admission_;
  const int64_t max_message_bytes_;
};

}  // namespace moesaic
