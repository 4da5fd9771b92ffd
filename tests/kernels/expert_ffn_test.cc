#include "kernels/expert_ffn.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

#include <gtest/gtest.h>

#include "base/str_cat.h"
#include "base/thread_pool.h"
#include "kernels/kernel_table.h"
#include "tests/kernels/kernel_test_util.h"

namespace moesaic::kernels {
namespace {

struct Case {
  Isa isa;
  DType dtype;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (Isa isa : SupportedIsas()) {
    cases.push_back({isa, DType::kFloat32});
    cases.push_back({isa, DType::kBFloat16});
  }
  return cases;
}

struct LayerShape {
  int64_t hidden = 0;
  int64_t units = 0;         // of an expert
  int64_t stripe_units = 0;  // a multiple of 64
  int64_t num_experts = 0;
  bool gated = true;
  Activation activation = Activation::kSilu;

  int64_t stripes() const { return (units + stripe_units - 1) / stripe_units; }
  StripeShape stripe(DType dtype) const { return {dtype, hidden, stripe_units, gated}; }
};

// Random experts, as a checkpoint holds them and packed.
class Experts {
 public:
  Experts(const KernelTable& kernels, DType dtype, const LayerShape& shape) : shape_(shape) {
    const StripeShape stripe = shape.stripe(dtype);
    const int64_t element_bytes = DTypeBytes(dtype);
    for (int64_t e = 0; e < shape.num_experts; ++e) {
      const int64_t size = shape.hidden * shape.units;
      gate.emplace_back(dtype, RandomValues(size, 0.05f, 100 + 3 * e));
      up.emplace_back(dtype, RandomValues(size, 0.05f, 101 + 3 * e));
      down.emplace_back(dtype, RandomValues(size, 0.05f, 102 + 3 * e));
      for (int64_t s = 0; s < shape.stripes(); ++s) {
        const int64_t first = s * shape.stripe_units;
        // Bytes that packing forgets to write are NaN.
        packed_.emplace_back(kernels.packed_stripe_bytes(stripe), std::byte{0xff});
        PackStripeArgs args;
        args.shape = stripe;
        args.valid_units = std::min(shape.stripe_units, shape.units - first);
        const int64_t row_offset = first * shape.hidden * element_bytes;
        args.gate = shape.gated ? gate[e].data.data() + row_offset : nullptr;
        args.up = up[e].data.data() + row_offset;
        args.down = down[e].data.data() + first * element_bytes;
        args.down_stride = shape.units;
        args.packed = packed_.back().data();
        kernels.pack_stripe(args);
      }
    }
    for (const std::vector<std::byte>& packed : packed_) stripes_.push_back(packed.data());
  }

  const void* const* stripes() const { return stripes_.data(); }
  void HideExpert(int64_t e) {
    for (int64_t s = 0; s < shape_.stripes(); ++s) stripes_[e * shape_.stripes() + s] = nullptr;
  }

  std::vector<Operand> gate, up, down;

 private:
  const LayerShape shape_;
  std::vector<std::vector<std::byte>> packed_;
  std::vector<const void*> stripes_;
};

// Which experts a row visits, and with what weight.
using Routing = std::vector<std::map<int32_t, float>>;

Routing RandomRouting(int64_t rows, int64_t num_experts, int64_t top_k, uint32_t seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<float> weight(0.05f, 1.0f);
  Routing routing(rows);
  for (auto& row : routing) {
    std::vector<int32_t> experts(num_experts);
    std::iota(experts.begin(), experts.end(), 0);
    std::shuffle(experts.begin(), experts.end(), generator);
    for (int64_t k = 0; k < top_k; ++k) row[experts[k]] = weight(generator);
  }
  return routing;
}

class ExpertFfnTest : public testing::TestWithParam<Case> {
 protected:
  const KernelTable& kernels() const { return CpuKernels(GetParam().isa); }
  DType dtype() const { return GetParam().dtype; }

  // Works of each of several calls over the same rows.
  using Calls = std::vector<std::vector<ExpertWork>>;

  // Runs rows [first, first + count) of `input` as one batch, onto `initial`: in one call, or in
  // those that `schedule` makes of the experts that have rows.
  std::vector<float> Run(
      const LayerShape& shape,
      const Experts& experts,
      const Operand& input,
      const Routing& routing,
      int64_t first,
      int64_t count,
      int threads,
      float initial = 0.0f,
      const std::function<Calls(const std::vector<int32_t>& offsets)>& schedule = nullptr) const {
    std::vector<int32_t> chosen;
    std::vector<float> gate_weights;
    const int64_t top_k = static_cast<int64_t>(routing[0].size());
    for (int64_t r = first; r < first + count; ++r) {
      for (const auto& [expert, weight] : routing[r]) {
        chosen.push_back(expert);
        gate_weights.push_back(weight);
      }
    }
    std::vector<int32_t> offsets(shape.num_experts + 1), rows(count * top_k);
    std::vector<float> weights(count * top_k);
    GroupRowsByExpert(count, top_k, shape.num_experts, chosen.data(), gate_weights.data(),
                      offsets.data(), rows.data(), weights.data());
    const Operand batch = input.Rows(first, count, shape.hidden);
    std::vector<float> output(count * shape.hidden, initial);
    const StripeShape stripe = shape.stripe(dtype());
    std::vector<std::byte> workspace(kernels().expert_ffn_workspace_bytes(
        stripe, shape.stripes(), shape.num_experts, count, count * top_k, threads));
    ThreadPool pool(threads);
    Stream stream{&pool};
    ExpertFfnArgs args;
    args.shape = stripe;
    args.activation = shape.activation;
    args.num_rows = count;
    args.routed = {shape.num_experts, offsets.data(), rows.data(), weights.data()};
    args.stripes_per_expert = shape.stripes();
    args.stripes = experts.stripes();
    args.input = batch.data.data();
    args.output = output.data();
    args.workspace = workspace.data();
    if (schedule == nullptr) {
      kernels().expert_ffn(args, stream);
    } else {
      for (const std::vector<ExpertWork>& works : schedule(offsets)) {
        args.works = works.data();
        args.num_works = static_cast<int64_t>(works.size());
        kernels().expert_ffn(args, stream);
      }
    }
    return output;
  }
};

// Stripes in calls as they might become resident: of random experts, those of one in order; whole
// experts only when all before them are added. `sums` keeps the experts' running sums.
std::vector<std::vector<ExpertWork>> RandomCalls(const std::vector<int32_t>& offsets,
                                                 int32_t stripes,
                                                 int64_t hidden,
                                                 uint32_t seed,
                                                 std::vector<std::vector<float>>* sums) {
  struct Progress {
    int32_t expert;
    int32_t done = 0;
    float* sums = nullptr;
  };
  std::mt19937 generator(seed);
  std::vector<Progress> experts;
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    const int32_t rows = offsets[e + 1] - offsets[e];
    if (rows == 0) continue;
    // Bytes that are read before they are written are NaN.
    sums->emplace_back(rows * hidden, std::numeric_limits<float>::quiet_NaN());
    experts.push_back({.expert = static_cast<int32_t>(e), .sums = sums->back().data()});
  }
  std::vector<std::vector<ExpertWork>> calls;
  size_t added = 0;
  while (added < experts.size()) {
    std::vector<ExpertWork> works;
    for (size_t i = added; i < experts.size(); ++i) {
      Progress& expert = experts[i];
      const bool next = i == added;
      if (next && expert.done == 0 && generator() % 4 == 0) {
        works.push_back({.expert = expert.expert, .num_stripes = stripes});
        ++added;
        continue;
      }
      const int32_t count = static_cast<int32_t>(generator() % (stripes - expert.done + 1));
      const bool complete = expert.done + count == stripes;
      if (count == 0 && !(next && complete)) continue;
      works.push_back({.expert = expert.expert,
                       .first_stripe = expert.done,
                       .num_stripes = count,
                       .sums = expert.sums,
                       .add_to_output = next && complete});
      expert.done += count;
      if (next && complete) ++added;
    }
    calls.push_back(std::move(works));
  }
  return calls;
}

double Activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGelu:
      return 0.5 * x * (1.0 + std::erf(x / std::sqrt(2.0)));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kRelu:
      return std::max(x, 0.0);
  }
  return NAN;
}

double Dot(const float* a, const float* b, int64_t count, double* magnitude) {
  double sum = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    sum += static_cast<double>(a[i]) * b[i];
    *magnitude += std::abs(static_cast<double>(a[i]) * b[i]);
  }
  return sum;
}

// Float64 throughout. The tolerance follows the error through the layer: a hidden unit is off by
// the rounding of its two sums over `hidden` (times a slope of the activation below 1.2) and, in
// bfloat16, by its own rounding of 2^-9; the output by the weighted sum of those and the rounding
// of the sum over the units.
void ExpectNear(const std::vector<float>& output,
                const LayerShape& shape,
                const Experts& experts,
                const Operand& input,
                const Routing& routing) {
  const double hidden_rounding = input.dtype == DType::kBFloat16 ? 0x1p-9 : 0x1p-23;
  const double sum_rounding = 0x1p-24;
  for (size_t r = 0; r < routing.size(); ++r) {
    std::vector<double> expected(shape.hidden, 0.0), tolerance(shape.hidden, 1e-12);
    const float* x = &input.values[r * shape.hidden];
    for (const auto& [e, weight] : routing[r]) {
      for (int64_t u = 0; u < shape.units; ++u) {
        double up_magnitude = 0.0, gate_magnitude = 0.0;
        const double up =
            Dot(x, &experts.up[e].values[u * shape.hidden], shape.hidden, &up_magnitude);
        double value, error;
        const double depth_rounding = 0.5 * shape.hidden * sum_rounding;
        if (shape.gated) {
          const double gate =
              Dot(x, &experts.gate[e].values[u * shape.hidden], shape.hidden, &gate_magnitude);
          const double activated = Activate(shape.activation, gate);
          value = activated * up;
          error = depth_rounding *
                  (1.2 * gate_magnitude * std::abs(up) + up_magnitude * std::abs(activated));
        } else {
          value = Activate(shape.activation, up);
          error = 1.2 * depth_rounding * up_magnitude;
        }
        error += (hidden_rounding + 0x1p-21) * std::abs(value);
        for (int64_t c = 0; c < shape.hidden; ++c) {
          const double w = weight * experts.down[e].values[c * shape.units + u];
          expected[c] += w * value;
          tolerance[c] +=
              std::abs(w) * (error + 0.5 * shape.units * sum_rounding * std::abs(value));
        }
      }
    }
    for (int64_t c = 0; c < shape.hidden; ++c) {
      ASSERT_NEAR(output[r * shape.hidden + c], expected[c], tolerance[c])
          << "row " << r << " column " << c;
    }
  }
}

TEST_P(ExpertFfnTest, MatchesFloat64) {
  struct Size {
    LayerShape shape;
    int64_t rows, top_k;
  };
  for (const Size& size : {
           Size{{8, 64, 64, 1}, 1, 1},        // one token, one expert
           Size{{33, 100, 64, 5}, 7, 2},      // odd hidden size, padded last stripe
           Size{{48, 192, 192, 6}, 40, 3},    // one stripe, last panel of half width
           Size{{2048, 128, 64, 2}, 3, 1},    // Qwen3's hidden size
           Size{{1100, 128, 128, 2}, 26, 2},  // depth of more than one block in float32
           Size{{64, 200, 128, 4, false, Activation::kRelu}, 9, 1},  // Switch
           Size{{40, 64, 64, 3, true, Activation::kGelu}, 5, 2},
           Size{{40, 64, 64, 3, false, Activation::kGeluTanh}, 5, 2},
       }) {
    const Experts experts(kernels(), dtype(), size.shape);
    const Operand input(dtype(), RandomValues(size.rows * size.shape.hidden, 1.0f, 1));
    const Routing routing = RandomRouting(size.rows, size.shape.num_experts, size.top_k, 2);
    for (int threads : {1, 2}) {
      ExpectNear(Run(size.shape, experts, input, routing, 0, size.rows, threads), size.shape,
                 experts, input, routing);
    }
  }
}

TEST_P(ExpertFfnTest, RowsKeepTheirBitsInAnyBatchAndOnAnyThreads) {
  for (const LayerShape& shape : {LayerShape{96, 192, 64, 7}, LayerShape{37, 128, 128, 3}}) {
    const int64_t rows = 200;
    const Experts experts(kernels(), dtype(), shape);
    const Operand input(dtype(), RandomValues(rows * shape.hidden, 1.0f, 3));
    const Routing routing = RandomRouting(rows, shape.num_experts, 3, 4);
    std::vector<float> alone;
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row = Run(shape, experts, input, routing, r, 1, 1, 0.25f);
      alone.insert(alone.end(), row.begin(), row.end());
    }
    for (int64_t batch : {2, 3, 7, 16, 64, 65, 200}) {
      for (int threads : {1, 2, 3}) {
        for (int64_t first : {int64_t{0}, rows - batch}) {
          const std::vector<float> output =
              Run(shape, experts, input, routing, first, batch, threads, 0.25f);
          ASSERT_EQ(std::memcmp(output.data(), alone.data() + first * shape.hidden,
                                output.size() * sizeof(float)),
                    0)
              << batch << " rows, " << threads << " threads";
        }
      }
    }
  }
}

TEST_P(ExpertFfnTest, AnySpreadOfStripesOverCallsGivesTheSameBits) {
  for (const LayerShape& shape : {LayerShape{96, 320, 64, 12}, LayerShape{37, 128, 64, 3}}) {
    const Experts experts(kernels(), dtype(), shape);
    for (int64_t rows : {1, 5, 64, 150}) {
      const Operand input(dtype(), RandomValues(rows * shape.hidden, 1.0f, 7));
      const Routing routing = RandomRouting(rows, shape.num_experts, 3, 8);
      const std::vector<float> whole = Run(shape, experts, input, routing, 0, rows, 1, 0.5f);
      for (uint32_t seed = 0; seed < 8; ++seed) {
        std::vector<std::vector<float>> sums;
        const std::vector<float> spread =
            Run(shape, experts, input, routing, 0, rows, 1 + seed % 3, 0.5f,
                [&](const std::vector<int32_t>& offsets) {
                  return RandomCalls(offsets, static_cast<int32_t>(shape.stripes()), shape.hidden,
                                     seed, &sums);
                });
        ASSERT_EQ(std::memcmp(whole.data(), spread.data(), whole.size() * sizeof(float)), 0)
            << rows << " rows, seed " << seed;
      }
    }
  }
}

TEST_P(ExpertFfnTest, TheSizeOfStripesDoesNotChangeABit) {
  const int64_t rows = 70;
  const LayerShape one = {48, 320, 320, 4};
  const Operand input(dtype(), RandomValues(rows * one.hidden, 1.0f, 9));
  const Routing routing = RandomRouting(rows, one.num_experts, 2, 10);
  for (int64_t count : {int64_t{3}, rows}) {
    const std::vector<float> whole =
        Run(one, Experts(kernels(), dtype(), one), input, routing, 0, count, 2);
    for (int64_t stripe_units : {64, 128, 192}) {
      const LayerShape cut = {48, 320, stripe_units, 4};
      const std::vector<float> sum =
          Run(cut, Experts(kernels(), dtype(), cut), input, routing, 0, count, 2);
      ASSERT_EQ(std::memcmp(whole.data(), sum.data(), whole.size() * sizeof(float)), 0)
          << stripe_units << " units a stripe, " << count << " rows";
    }
  }
}

TEST_P(ExpertFfnTest, ReadsNoExpertWithoutRowsAndAddsToTheOutput) {
  const LayerShape shape = {32, 64, 64, 4};
  Experts experts(kernels(), dtype(), shape);
  experts.HideExpert(0);
  experts.HideExpert(3);
  const Operand input(dtype(), RandomValues(2 * 32, 1.0f, 5));
  const Routing routing = {{{1, 0.5f}}, {{2, 0.25f}}};
  const std::vector<float> zero = Run(shape, experts, input, routing, 0, 2, 2);
  const std::vector<float> onto = Run(shape, experts, input, routing, 0, 2, 2, 8.0f);
  for (size_t i = 0; i < zero.size(); ++i) EXPECT_NEAR(onto[i], zero[i] + 8.0f, 1e-6f);
}

TEST_P(ExpertFfnTest, NoRowsAreNoWork) {
  const LayerShape shape = {32, 64, 64, 2};
  Experts experts(kernels(), dtype(), shape);
  experts.HideExpert(0);
  experts.HideExpert(1);
  const Operand input(dtype(), RandomValues(32, 1.0f, 6));
  EXPECT_TRUE(Run(shape, experts, input, {{{0, 1.0f}}}, 0, 0, 2).empty());
}

INSTANTIATE_TEST_SUITE_P(
    Isas, ExpertFfnTest, testing::ValuesIn(Cases()), [](const testing::TestParamInfo<Case>& param) {
      return StrCat(IsaName(param.param.isa), "_", DTypeName(param.param.dtype));
    });

TEST(GroupRowsByExpertTest, SortsByExpertThenRow) {
  const std::vector<int32_t> experts = {3, 1, 1, 0, 3, 4};  // three rows, two experts each
  const std::vector<float> gate_weights = {0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f};
  std::vector<int32_t> offsets(6), rows(6);
  std::vector<float> weights(6);
  GroupRowsByExpert(3, 2, 5, experts.data(), gate_weights.data(), offsets.data(), rows.data(),
                    weights.data());
  EXPECT_EQ(offsets, (std::vector<int32_t>{0, 1, 3, 3, 5, 6}));
  EXPECT_EQ(rows, (std::vector<int32_t>{1, 0, 1, 0, 2, 2}));
  EXPECT_EQ(weights, (std::vector<float>{0.4f, 0.2f, 0.3f, 0.1f, 0.5f, 0.6f}));
}

TEST(GroupRowsByExpertTest, NoRowsGiveEmptyExperts) {
  std::vector<int32_t> offsets(4, -1);
  GroupRowsByExpert(0, 2, 3, nullptr, nullptr, offsets.data(), nullptr, nullptr);
  EXPECT_EQ(offsets, (std::vector<int32_t>{0, 0, 0, 0}));
}

}  // namespace
}  // namespace moesaic::kernels
