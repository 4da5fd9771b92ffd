#include "tests/server/overload.h"

#include <atomic>
#include <latch>
#include <vector>

namespace moesaic {
namespace {

struct Call final : public grpc::ClientReadReactor<v1::GenerateResponse> {
  grpc::ClientContext context;
  v1::GenerateResponse message;
  grpc::Status status;
  int tokens = 0;
  std::latch* done = nullptr;
  std::atomic<int>* refused = nullptr;

  void OnReadDone(bool ok) override {
    if (!ok) return;
    tokens += message.token_ids_size();
    StartRead(&message);
  }
  void OnDone(const grpc::Status& final_status) override {
    status = final_status;
    if (!status.ok()) {
      ++*refused;
      refused->notify_all();
    }
    done->count_down();
  }
};

}  // namespace

OverloadResult Overload(v1::Inference::Stub& stub,
                        Engine& engine,
                        const v1::GenerateRequest& request,
                        int streams,
                        int expected_refusals) {
  engine.SetHeld(true);
  std::vector<Call> calls(streams);
  std::latch done(streams);
  std::atomic<int> refused{0};
  for (Call& call : calls) {
    call.done = &done;
    call.refused = &refused;
    stub.async()->Generate(&call.context, &request, &call);
    call.StartRead(&call.message);
    call.StartCall();
  }
  for (int now = refused; now < expected_refusals; now = refused) refused.wait(now);
  engine.SetHeld(false);
  done.wait();

  OverloadResult result;
  for (const Call& call : calls) {
    if (call.status.ok() && call.tokens == request.sampling().max_tokens()) {
      ++result.accepted;
    } else if (call.status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED &&
               call.context.GetServerTrailingMetadata().count("grpc-retry-pushback-ms") == 1) {
      ++result.refused;
    } else {
      ++result.otherwise;
    }
  }
  return result;
}

}  // namespace moesaic
