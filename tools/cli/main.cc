// moesaic-cli: generate, info, health and tokenize against a running server.

#include <unistd.h>

#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include <grpcpp/create_channel.h>

#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "base/str_cat.h"
#include "proto/grpc/health/v1/health.grpc.pb.h"
#include "proto/moesaic/v1/inference.grpc.pb.h"
#include "tools/cli/options.h"
#include "tools/cli/output.h"

namespace moesaic::cli {
namespace {

constexpr int kExitUsage = 2;
constexpr size_t kMaxStdinBytes = size_t{16} << 20;

// The server's status in words that say what to do.
absl::Status Explain(const grpc::Status& status, const Options& options) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  std::string message = status.error_message();
  switch (status.error_code()) {
    case grpc::StatusCode::UNAVAILABLE:
      message += StrCat("\nIs a server running at ", options.address,
                        "? scripts/run.sh starts one; --address names another.");
      break;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      message += "\nThe server is full; try again in a moment.";
      break;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      message += "\nThe answer took longer than --timeout.";
      break;
    default:
      break;
  }
  return absl::Status(code, message);
}

void SetDeadline(const Options& options, grpc::ClientContext& context) {
  if (options.timeout == absl::InfiniteDuration()) return;
  context.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
}

absl::StatusOr<std::string> ReadStdin(const char* what) {
  if (isatty(STDIN_FILENO) != 0) {
    std::fprintf(stderr, "%s from standard input; Ctrl-D ends it:\n", what);
  }
  std::string text;
  char buffer[1 << 16];
  size_t bytes;
  while ((bytes = std::fread(buffer, 1, sizeof(buffer), stdin)) > 0) {
    text.append(buffer, bytes);
    if (text.size() > kMaxStdinBytes) {
      return absl::InvalidArgumentError("standard input is longer than 16 MiB");
    }
  }
  // A line typed or echoed is meant without its end.
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

absl::Status Generate(const Options& options, v1::Inference::Stub& stub) {
  grpc::ClientContext context;
  SetDeadline(options, context);
  const absl::Time start = absl::Now();
  absl::Time first_token = absl::InfiniteFuture();
  GenerationPrinter printer(options, stdout, stderr);
  const auto reader = stub.Generate(&context, options.request);
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
    if (first_token == absl::InfiniteFuture() && message.token_ids_size() > 0) {
      first_token = absl::Now();
    }
    printer.Print(message);
  }
  printer.Finish(absl::Now() - start, std::min(first_token, absl::Now()) - start);
  return Explain(reader->Finish(), options);
}

absl::Status Info(const Options& options, v1::Inference::Stub& stub) {
  v1::GetModelInfoResponse info;
  {
    grpc::ClientContext context;
    SetDeadline(options, context);
    MOESAIC_RETURN_IF_ERROR(Explain(stub.GetModelInfo(&context, {}, &info), options));
  }
  v1::GetLoadResponse load;
  grpc::ClientContext context;
  SetDeadline(options, context);
  MOESAIC_RETURN_IF_ERROR(Explain(stub.GetLoad(&context, {}, &load), options));
  std::fputs((options.json ? ToJson(info, load) : Describe(info, load)).c_str(), stdout);
  return absl::OkStatus();
}

absl::Status Health(const Options& options, const std::shared_ptr<grpc::Channel>& channel) {
  grpc::ClientContext context;
  SetDeadline(options, context);
  grpc::health::v1::HealthCheckResponse response;
  MOESAIC_RETURN_IF_ERROR(
      Explain(grpc::health::v1::Health::NewStub(channel)->Check(&context, {}, &response), options));
  const std::string& name =
      grpc::health::v1::HealthCheckResponse::ServingStatus_Name(response.status());
  std::printf(options.json ? "{\"status\":\"%s\"}\n" : "%s\n", name.c_str());
  if (response.status() == grpc::health::v1::HealthCheckResponse::SERVING) return absl::OkStatus();
  return absl::UnavailableError("the server does not serve: it is loading or shutting down");
}

absl::Status Tokenize(const Options& options, v1::Inference::Stub& stub) {
  grpc::ClientContext context;
  SetDeadline(options, context);
  v1::TokenizeResponse response;
  MOESAIC_RETURN_IF_ERROR(Explain(stub.Tokenize(&context, options.tokenize, &response), options));
  if (options.json) {
    std::fputs(ToJson(response).c_str(), stdout);
    return absl::OkStatus();
  }
  for (int i = 0; i < response.ids_size(); ++i) {
    std::printf("%8d  %s\n", response.ids(i), response.tokens(i).c_str());
  }
  return absl::OkStatus();
}

absl::Status Run(Options& options) {
  if (options.read_stdin) {
    MOESAIC_ASSIGN_OR_RETURN(std::string text,
                             ReadStdin(options.command == Command::kGenerate ? "prompt" : "text"));
    MOESAIC_RETURN_IF_ERROR(SetPrompt(std::move(text), options));
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  const std::shared_ptr<grpc::Channel> channel =
      grpc::CreateCustomChannel(options.address, grpc::InsecureChannelCredentials(), arguments);
  const auto stub = v1::Inference::NewStub(channel);
  switch (options.command) {
    case Command::kGenerate:
      return Generate(options, *stub);
    case Command::kInfo:
      return Info(options, *stub);
    case Command::kHealth:
      return Health(options, channel);
    case Command::kTokenize:
      return Tokenize(options, *stub);
    case Command::kPrint:
      std::fputs(options.text.c_str(), stdout);
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

int Main(int argc, char** argv) {
  absl::StatusOr<Options> options = ParseOptions(argc, argv);
  if (!options.ok()) {
    std::fprintf(stderr, "moesaic-cli: %s\n", std::string(options.status().message()).c_str());
    return kExitUsage;
  }
  const absl::Status status = Run(*options);
  if (status.ok()) return EXIT_SUCCESS;
  std::fprintf(stderr, "moesaic-cli: %s: %s\n", absl::StatusCodeToString(status.code()).c_str(),
               std::string(status.message()).c_str());
  return EXIT_FAILURE;
}

}  // namespace
}  // namespace moesaic::cli

int main(int argc, char** argv) { return moesaic::cli::Main(argc, argv); }
