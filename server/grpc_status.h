#pragma once

#include <string>
#include <string_view>

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace moesaic {

// Metadata with the client's name for a request.
inline constexpr char kRequestIdKey[] = "x-request-id";
inline constexpr char kRoutingKey[] = "moesaic-routing";

// Canonical codes are the same on both sides.
grpc::Status ToGrpcStatus(const absl::Status& status);

// The same, for a refusal: with RESOURCE_EXHAUSTED the trailing metadata says when to come back.
grpc::Status RefusalStatus(const absl::Status& status, grpc::CallbackServerContext& context);

// The client's deadline; InfiniteFuture when it set none.
absl::Time ClientDeadline(const grpc::CallbackServerContext& context);

// Request metadata; empty when the client sent none of this name.
std::string ClientMetadata(const grpc::CallbackServerContext& context, const char* name);

// Initial metadata of every answer: the client's x-request-id, if it gave one of a sensible size,
// and that routing is replayed, so that answers are not the model's. Before anything else is sent.
void AddResponseMetadata(grpc::CallbackServerContext& context, bool routing_replayed);

// Why gRPC cancelled a call at `now` that arrived at `arrival` with `deadline`: the client gave up
// at its deadline, or is gone.
absl::Status CancellationStatus(absl::Time arrival, absl::Time deadline, absl::Time now);

// The text with every byte that is not ASCII replaced, for protobuf string fields that may quote
// what a client sent.
std::string PrintableText(std::string_view text);

}  // namespace moesaic
