// moesaic-server: parses the configuration, serves one model until SIGTERM or SIGINT, and drains.

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "absl/time/clock.h"
#include "base/log.h"
#include "server/config.h"
#include "server/health_check.h"
#include "server/logging.h"
#include "server/server.h"

namespace moesaic {
namespace {

constexpr int kExitUsage = 2;
constexpr int kExitWatchdog = 3;
// On top of what the shutdown is configured to take.
constexpr absl::Duration kWatchdogGrace = absl::Seconds(10);

// Signals that end the server, blocked in every thread and taken by a thread of their own.
sigset_t EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

void Fail(const absl::Status& status) { spdlog::error("{}", std::string(status.message())); }

// Takes the signal that ends the server. While `server` still loads its model there is nothing to
// drain, and no way to interrupt the loading: then the signal ends the process at once. Must end
// before `server`.
class EndSignal {
 public:
  explicit EndSignal(const Server& server)
      : thread_([this, &server] {
          const sigset_t signals = EndSignals();
          sigwait(&signals, &signal_);
          if (abandoned_ || server.loaded()) return;
          spdlog::info("signal={} while loading: exiting", strsignal(signal_));
          _exit(EXIT_SUCCESS);
        }) {}
  ~EndSignal() {
    if (!thread_.joinable()) return;
    abandoned_ = true;
    ::kill(getpid(), SIGTERM);  // blocked everywhere, so the thread takes it
    thread_.join();
  }

  int Wait() {
    thread_.join();
    return signal_;
  }

 private:
  int signal_ = 0;
  std::atomic<bool> abandoned_ = false;
  std::thread thread_;  // last: it runs on the members above
};

// Ends the process when an orderly shutdown does not; a second signal ends it at once.
void WatchShutdown(absl::Duration limit) {
  std::thread([limit] {
    const sigset_t signals = EndSignals();
    const timespec wait = absl::ToTimespec(limit);
    const int signal = sigtimedwait(&signals, nullptr, &wait);
    spdlog::error(signal > 0 ? "second signal: exiting at once"
                             : "shutdown did not finish in time: exiting");
    _exit(kExitWatchdog);
  }).detach();
}

int Serve(const ServerConfig& config) {
  absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config);
  if (!server.ok()) {
    Fail(server.status());
    return EXIT_FAILURE;
  }
  EndSignal end_signal(**server);
  if (const absl::Status loaded = (*server)->LoadModel(); !loaded.ok()) {
    Fail(loaded);
    return EXIT_FAILURE;
  }
  const int signal = end_signal.Wait();
  spdlog::info("signal={} shutting down", strsignal(signal));
  WatchShutdown(config.lame_duck + config.drain_timeout + kWatchdogGrace);
  (*server)->Shutdown();
  server->reset();
  return EXIT_SUCCESS;
}

int Main(int argc, char** argv) {
  const absl::StatusOr<ServerCommand> command = ParseServerCommand(argc, argv);
  if (!command.ok()) {
    std::fprintf(stderr, "moesaic-server: %s\n", std::string(command.status().message()).c_str());
    return kExitUsage;
  }
  switch (command->kind) {
    case ServerCommand::Kind::kPrint:
      std::fputs(command->text.c_str(), stdout);
      return EXIT_SUCCESS;
    case ServerCommand::Kind::kHealthCheck: {
      const absl::Status status = AskHealth(command->config.bind, command->config.grpc_port);
      std::puts(status.ok() ? "SERVING" : std::string(status.message()).c_str());
      return status.ok() ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    case ServerCommand::Kind::kServe:
      break;
  }
  // Before any thread starts, so that all inherit it.
  const sigset_t signals = EndSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  SetUpLogging(command->config.log_json);
  return Serve(command->config);
}

}  // namespace
}  // namespace moesaic

int main(int argc, char** argv) { return moesaic::Main(argc, argv); }
