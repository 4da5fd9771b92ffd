#pragma once

#include "engine/engine.h"
#include "proto/moesaic/v1/inference.grpc.pb.h"

namespace moesaic {

struct OverloadResult {
  int accepted = 0;   // answered OK with all tokens asked for
  int refused = 0;    // RESOURCE_EXHAUSTED, and told when to come back
  int otherwise = 0;  // anything else
};

// Opens `streams` streams of `request` at once while `engine` is held, lets it go when
// `expected_refusals` of them are refused, and waits for all.
OverloadResult Overload(v1::Inference::Stub& stub,
                        Engine& engine,
                        const v1::GenerateRequest& request,
                        int streams,
                        int expected_refusals);

}  // namespace moesaic
