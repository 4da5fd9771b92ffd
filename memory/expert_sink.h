#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "core/ids.h"
#include "memory/expert_store.h"

namespace moesaic {

// Takes the stripes of a model's experts as they are packed. Layers come one after the other; the
// stripes of a layer in any order, by several threads.
//
// Owner: the loader. Thread: BeginStripe and FinishStripe by each worker on its own, the rest by
// the loading thread while no worker is in them. Lifetime: one load.
class ExpertSink {
 public:
  virtual ~ExpertSink() = default;

  // The layer is here already: nothing of it is to be packed.
  virtual bool HasLayer(int32_t layer) const = 0;
  // Where `worker` packs the stripe, aligned to 4 KiB; what it does not write is zero.
  virtual std::byte* BeginStripe(StripeId id, int worker) = 0;
  // The stripe that `worker` began is complete.
  virtual absl::Status FinishStripe(StripeId id, int worker) = 0;
  // Every stripe of the layer was finished.
  virtual absl::Status FinishLayer(int32_t layer) = 0;
};

// Into RAM. Borrows the store.
class ExpertStoreSink : public ExpertSink {
 public:
  explicit ExpertStoreSink(ExpertStore& store) : store_(store) {}

  bool HasLayer(int32_t) const override { return false; }
  std::byte* BeginStripe(StripeId id, int) override {
    return static_cast<std::byte*>(store_.MutableStripe(id));
  }
  absl::Status FinishStripe(StripeId, int) override { return absl::OkStatus(); }
  absl::Status FinishLayer(int32_t) override { return absl::OkStatus(); }

 private:
  ExpertStore& store_;
};

}  // namespace moesaic
