#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <string>

#include "base/status_macros.h"
#include "base/str_cat.h"

namespace moesaic {
namespace {

constexpr char kWhat[] = "config.json";
constexpr double kMaxFactor = 1e6;
constexpr double kMaxTheta = 1e15;

absl::StatusOr<double> NumberIn(const Json& object,
                                const char* field,
                                double min,
                                double max,
                                std::optional<double> fallback = std::nullopt) {
  MOESAIC_ASSIGN_OR_RETURN(const double value, JsonNumber(object, field, kWhat, fallback));
  // Written so that NaN is refused too.
  if (!(value >= min && value <= max)) {
    return absl::InvalidArgumentError(
        StrCat(kWhat, ": \"", field, "\" is ", value, ", expected [", min, ", ", max, "]"));
  }
  return value;
}

// theta^(-2i / dim). transformers raises in float32; the exponent is rounded like there.
std::vector<float> Unscaled(double theta, int32_t dim) {
  std::vector<float> inverse(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < inverse.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(dim);
    inverse[i] = 1.0f / static_cast<float>(std::pow(theta, static_cast<double>(exponent)));
  }
  return inverse;
}

absl::StatusOr<RopeFrequencies> Linear(const Json& parameters, std::vector<float> inverse) {
  MOESAIC_ASSIGN_OR_RETURN(const double factor, NumberIn(parameters, "factor", 1e-6, kMaxFactor));
  for (float& frequency : inverse) frequency /= static_cast<float>(factor);
  return RopeFrequencies{.inverse_frequencies = std::move(inverse)};
}

// Llama 3.1: long wavelengths are divided by `factor`, short ones kept, those between blended.
absl::StatusOr<RopeFrequencies> Llama3(const Json& parameters,
                                       double original_positions,
                                       std::vector<float> inverse) {
  MOESAIC_ASSIGN_OR_RETURN(const double factor, NumberIn(parameters, "factor", 1e-6, kMaxFactor));
  MOESAIC_ASSIGN_OR_RETURN(const double low, NumberIn(parameters, "low_freq_factor", 1e-6, 1e6));
  MOESAIC_ASSIGN_OR_RETURN(const double high, NumberIn(parameters, "high_freq_factor", 1e-6, 1e6));
  if (high <= low) {
    return absl::InvalidArgumentError(StrCat(kWhat, ": \"high_freq_factor\" is ", high,
                                             ", expected more than low_freq_factor ", low));
  }
  const float low_wavelength = static_cast<float>(original_positions / low);
  const float high_wavelength = static_cast<float>(original_positions / high);
  const float divisor = static_cast<float>(factor);
  for (float& frequency : inverse) {
    const float wavelength = static_cast<float>(2.0 * std::numbers::pi) / frequency;
    if (wavelength > low_wavelength) {
      frequency /= divisor;
    } else if (wavelength >= high_wavelength) {
      const float smooth =
          (static_cast<float>(original_positions) / wavelength - static_cast<float>(low)) /
          static_cast<float>(high - low);
      frequency = (1.0f - smooth) * frequency / divisor + smooth * frequency;
    }
  }
  return RopeFrequencies{.inverse_frequencies = std::move(inverse)};
}

double YarnScale(double scale, double multiplier) {
  return scale <= 1.0 ? 1.0 : 0.1 * multiplier * std::log(scale) + 1.0;
}

// YaRN (arXiv 2309.00071): dimensions that turn often within the original context keep their
// frequency, those that turn less than once are interpolated, with a ramp between.
absl::StatusOr<RopeFrequencies> Yarn(const Json& parameters,
                                     double theta,
                                     double original_positions,
                                     int32_t max_positions,
                                     std::vector<float> inverse) {
  // As in transformers the field must be there, but may be null: then the lengths decide.
  std::optional<double> default_factor;
  if (parameters.contains("factor")) default_factor = max_positions / original_positions;
  MOESAIC_ASSIGN_OR_RETURN(const double factor,
                           NumberIn(parameters, "factor", 1e-6, kMaxFactor, default_factor));
  MOESAIC_ASSIGN_OR_RETURN(double beta_fast, NumberIn(parameters, "beta_fast", 0, 1e6, 32.0));
  MOESAIC_ASSIGN_OR_RETURN(double beta_slow, NumberIn(parameters, "beta_slow", 0, 1e6, 1.0));
  if (beta_fast == 0.0) beta_fast = 32.0;
  if (beta_slow == 0.0) beta_slow = 1.0;
  MOESAIC_ASSIGN_OR_RETURN(const double mscale, NumberIn(parameters, "mscale", 0, 1e6, 0.0));
  MOESAIC_ASSIGN_OR_RETURN(const double mscale_all_dim,
                           NumberIn(parameters, "mscale_all_dim", 0, 1e6, 0.0));
  const double inferred = mscale > 0.0 && mscale_all_dim > 0.0
                              ? YarnScale(factor, mscale) / YarnScale(factor, mscale_all_dim)
                              : YarnScale(factor, 1.0);
  MOESAIC_ASSIGN_OR_RETURN(const double attention_factor,
                           NumberIn(parameters, "attention_factor", 0, 1e6, inferred));
  MOESAIC_ASSIGN_OR_RETURN(const bool truncate, JsonBool(parameters, "truncate", kWhat, true));

  const double dim = 2.0 * static_cast<double>(inverse.size());
  const auto correction_dim = [&](double rotations) {
    return dim * std::log(original_positions / (rotations * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(theta));
  };
  double low = correction_dim(beta_fast);
  double high = correction_dim(beta_slow);
  if (truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < inverse.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float kept = 1.0f - ramp;
    const float interpolated = 1.0f / (static_cast<float>(factor) * (1.0f / inverse[i]));
    inverse[i] = interpolated * (1.0f - kept) + inverse[i] * kept;
  }
  return RopeFrequencies{.inverse_frequencies = std::move(inverse),
                         .attention_factor = static_cast<float>(attention_factor)};
}

// rope_scaling comes before rope_parameters unless it is empty, as in transformers.
absl::StatusOr<Json> FindParameters(const Json& config) {
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    const Json* parameters = JsonFind(config, field);
    if (parameters == nullptr) continue;
    if (!parameters->is_object()) {
      return absl::InvalidArgumentError(StrCat(kWhat, ": \"", field, "\" is not an object"));
    }
    if (parameters->empty()) continue;
    for (const auto& [key, value] : parameters->items()) {
      if (value.is_object()) {
        return absl::UnimplementedError(StrCat(
            kWhat, ": \"", field, "\" differs between layer types (\"", key.substr(0, 100), "\")"));
      }
    }
    return *parameters;
  }
  return Json::object();
}

}  // namespace

absl::StatusOr<RopeFrequencies> ReadRope(const Json& config,
                                         double default_theta,
                                         int32_t head_dim,
                                         int32_t max_positions) {
  MOESAIC_ASSIGN_OR_RETURN(const Json parameters, FindParameters(config));
  MOESAIC_ASSIGN_OR_RETURN(const std::string old_type,
                           JsonString(parameters, "type", kWhat, "default"));
  MOESAIC_ASSIGN_OR_RETURN(const std::string type,
                           JsonString(parameters, "rope_type", kWhat, old_type));
  const Json& theta_holder = JsonFind(parameters, "rope_theta") != nullptr ? parameters : config;
  // The lower bound keeps log(theta) away from 0.
  MOESAIC_ASSIGN_OR_RETURN(const double theta,
                           NumberIn(theta_holder, "rope_theta", 1.001, kMaxTheta, default_theta));
  const Json& partial_holder =
      JsonFind(parameters, "partial_rotary_factor") != nullptr ? parameters : config;
  MOESAIC_ASSIGN_OR_RETURN(const double partial,
                           JsonNumber(partial_holder, "partial_rotary_factor", kWhat, 1.0));
  if (partial != 1.0) {
    return absl::UnimplementedError(StrCat(kWhat, ": \"partial_rotary_factor\" is ", partial,
                                           ", these families rotate whole heads"));
  }
  std::vector<float> inverse = Unscaled(theta, head_dim);
  if (type == "default") return RopeFrequencies{.inverse_frequencies = std::move(inverse)};
  if (type == "linear") return Linear(parameters, std::move(inverse));

  const char* original = "original_max_position_embeddings";
  const Json& original_holder = JsonFind(config, original) != nullptr ? config : parameters;
  MOESAIC_ASSIGN_OR_RETURN(const double original_positions,
                           NumberIn(original_holder, original, 1, 1e9, max_positions));
  if (type == "llama3") return Llama3(parameters, original_positions, std::move(inverse));
  if (type == "yarn") {
    return Yarn(parameters, theta, original_positions, max_positions, std::move(inverse));
  }
  return absl::UnimplementedError(StrCat(kWhat, ": \"rope_type\" is \"", type.substr(0, 100),
                                         "\", supported: default, linear, llama3, yarn"));
}

}  // namespace moesaic
