#include "base/progress.h"

#include <unistd.h>

#include <array>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace moesaic {
namespace {

constexpr absl::Duration kTerminalInterval = absl::Milliseconds(100);
constexpr absl::Duration kPipedInterval = absl::Seconds(5);

}  // namespace

std::string FormatBytes(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return absl::StrFormat("%d B", bytes);
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.1f %s", value, kUnits[unit]);
}

ProgressLine::ProgressLine(std::string label, uint64_t total, ProgressUnit unit, std::FILE* out)
    : label_(std::move(label)),
      total_(total),
      unit_(unit),
      out_(out),
      terminal_(isatty(fileno(out)) != 0),
      start_(absl::Now()),
      last_print_(start_) {}

ProgressLine::~ProgressLine() { Finish(); }

void ProgressLine::Advance(uint64_t amount) {
  done_ += amount;
  const absl::Time now = absl::Now();
  if (now - last_print_ >= (terminal_ ? kTerminalInterval : kPipedInterval)) Print(now, false);
}

void ProgressLine::Finish() {
  if (finished_) return;
  finished_ = true;
  Print(absl::Now(), true);
}

std::string ProgressLine::Format(uint64_t amount) const {
  return unit_ == ProgressUnit::kBytes ? FormatBytes(amount) : absl::StrFormat("%d", amount);
}

void ProgressLine::Print(absl::Time now, bool final) {
  last_print_ = now;
  const double seconds = absl::ToDoubleSeconds(now - start_);
  const uint64_t rate = seconds > 0 ? static_cast<uint64_t>(done_ / seconds) : 0;
  const int percent = total_ > 0 ? static_cast<int>(100.0 * done_ / total_) : 100;
  const std::string line =
      absl::StrFormat("%s  %s of %s  %d %%  %s/s  %.1f s", label_, Format(done_), Format(total_),
                      percent, Format(rate), seconds);
  absl::FPrintF(out_, "%s%s%s", terminal_ ? "\r\033[K" : "", line, terminal_ && !final ? "" : "\n");
  std::fflush(out_);
}

}  // namespace moesaic
