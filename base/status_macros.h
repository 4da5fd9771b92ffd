#pragma once

// RETURN_IF_ERROR and ASSIGN_OR_RETURN for absl::Status: the distribution's Abseil predates its
// own.

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define MOESAIC_RETURN_IF_ERROR(expr)                                 \
  do {                                                                \
    if (absl::Status moesaic_status = (expr); !moesaic_status.ok()) { \
      return moesaic_status;                                          \
    }                                                                 \
  } while (false)

#define MOESAIC_STATUS_CONCAT_INNER(a, b) a##b
#define MOESAIC_STATUS_CONCAT(a, b) MOESAIC_STATUS_CONCAT_INNER(a, b)

#define MOESAIC_ASSIGN_OR_RETURN(lhs, expr) \
  MOESAIC_ASSIGN_OR_RETURN_IMPL(MOESAIC_STATUS_CONCAT(moesaic_statusor_, __LINE__), lhs, expr)

#define MOESAIC_ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                                  \
  if (!statusor.ok()) {                                    \
    return std::move(statusor).status();                   \
  }                                                        \
  lhs = std::move(statusor).value()
