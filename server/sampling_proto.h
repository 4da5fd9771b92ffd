#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/moesaic/v1/inference.pb.h"
#include "server/generation_request.h"

namespace moesaic {

// moesaic.v1's messages to and from the core's types.

// `defaults` fills the sampling fields that the message leaves out.
absl::StatusOr<GenerationRequest> DecodeGenerateRequest(const v1::GenerateRequest& message,
                                                        const SamplingParams& defaults);
v1::SamplingParams EncodeSamplingParams(const SamplingParams& params);

}  // namespace moesaic
