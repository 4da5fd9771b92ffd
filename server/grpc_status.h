#pragma once

#include <string>
#include <string_view>

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace moesaic {

// Canonical codes are the same on both sides.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The same, for a refusal: with RESOURCE_EXHAUSTED the trailing metadata says when to come back.
grpc::Status RefusalStatus(const absl::Status& status, grpc::CallbackServerContext& context);

// The client's deadline; InfiniteFuture when it set none.
absl::Time ClientDeadline(const grpc::CallbackServerContext& context);

// Request metadata; empty when the client sent none of this name.
std::string ClientMetadata(const grpc::CallbackServerContext& context, const char* name);

// The text with every byte that is not ASCII replaced, for protobuf string fields that may quote
// what a client sent.
std::string PrintableText(std::string_view text);

}  // namespace moesaic
