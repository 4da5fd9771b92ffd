#include "server/logging.h"

#include <memory>
#include <string>

#include "base/log.h"
#include "checkpoint/json.h"

namespace moesaic {
namespace {

// spdlog's patterns cannot escape the message, so each record becomes an object here.
class JsonFormatter final : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& record, spdlog::memory_buf_t& out) override {
    spdlog::memory_buf_t time;
    time_.format(record, time);
    Json object;
    object["time"] = std::string(time.data(), time.size());
    const auto level = spdlog::level::to_string_view(record.level);
    object["level"] = std::string(level.data(), level.size());
    object["message"] = std::string(record.payload.data(), record.payload.size());
    const std::string line = object.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<JsonFormatter>();
  }

 private:
  spdlog::pattern_formatter time_{"%Y-%m-%dT%H:%M:%S.%e%z", spdlog::pattern_time_type::local, ""};
};

}  // namespace

void SetUpLogging(bool json) {
  auto logger = std::make_shared<spdlog::logger>("moesaic",
                                                 std::make_shared<spdlog::sinks::stderr_sink_mt>());
  if (json) {
    logger->set_formatter(std::make_unique<JsonFormatter>());
  } else {
    logger->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %v");
  }
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace moesaic
