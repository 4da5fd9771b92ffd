#include "tools/cli/options.h"

#include <cstdlib>
#include <limits>
#include <utility>

#include <CLI/CLI.hpp>

#include "base/status_macros.h"
#include "base/str_cat.h"
#include "tokenizer/utf8.h"

namespace moesaic::cli {
namespace {

constexpr int32_t kDefaultMaxTokens = 128;

// A flag that sets a protobuf field only when it is given, so that the server's default holds
// otherwise.
template <typename T, typename Message>
CLI::Option* Field(CLI::App* app,
                   const std::string& name,
                   Message* message,
                   void (Message::*set)(T),
                   const std::string& help) {
  return app->add_option_function<T>(
      name, [message, set](const T& value) { (message->*set)(value); }, help);
}

void AddSamplingFlags(CLI::App* app, v1::SamplingParams* sampling) {
  using S = v1::SamplingParams;
  sampling->set_max_tokens(kDefaultMaxTokens);
  const std::string group = "Sampling (left out: the model's defaults)";
  Field<int32_t>(app, "--max-tokens", sampling, &S::set_max_tokens, "new tokens at most; 128")
      ->group(group);
  Field<int32_t>(app, "--min-tokens", sampling, &S::set_min_tokens,
                 "no stop before this many new tokens")
      ->group(group);
  Field<float>(app, "--temperature", sampling, &S::set_temperature, "0: greedy; 1: as trained")
      ->group(group);
  Field<int32_t>(app, "--top-k", sampling, &S::set_top_k, "keep the k most probable tokens; 0: all")
      ->group(group);
  Field<float>(app, "--top-p", sampling, &S::set_top_p, "keep this much probability, (0, 1]")
      ->group(group);
  Field<float>(app, "--min-p", sampling, &S::set_min_p,
               "drop tokens less probable than this times the best, [0, 1]")
      ->group(group);
  Field<float>(app, "--repetition-penalty", sampling, &S::set_repetition_penalty,
               "over 1: against tokens of prompt and output")
      ->group(group);
  Field<float>(app, "--presence-penalty", sampling, &S::set_presence_penalty,
               "against tokens of the output, [-2, 2]")
      ->group(group);
  Field<float>(app, "--frequency-penalty", sampling, &S::set_frequency_penalty,
               "the same, by how often, [-2, 2]")
      ->group(group);
  Field<uint64_t>(app, "--seed", sampling, &S::set_seed, "same seed, same tokens")->group(group);
  app->add_option_function<std::vector<std::string>>(
         "--stop",
         [sampling](const std::vector<std::string>& stops) {
           for (const std::string& stop : stops) sampling->add_stop(stop);
         },
         "end where this text appears; can be repeated")
      ->allow_extra_args(false)  // one value a flag: what follows may be the prompt
      ->group(group);
  app->add_option_function<std::vector<int32_t>>(
         "--stop-token-id",
         [sampling](const std::vector<int32_t>& ids) {
           for (const int32_t id : ids) sampling->add_stop_token_ids(id);
         },
         "end with this token; can be repeated")
      ->allow_extra_args(false)
      ->group(group);
  app->add_flag_callback(
         "--ignore-eos", [sampling] { sampling->set_ignore_eos(true); },
         "go on after the end-of-sequence token")
      ->group(group);
  app->add_flag_callback(
         "--include-stop", [sampling] { sampling->set_include_stop_str_in_output(true); },
         "the text that ended the output is part of it")
      ->group(group);
  app->add_flag_callback(
         "--show-special-tokens", [sampling] { sampling->set_skip_special_tokens(false); },
         "write special tokens as text")
      ->group(group);
  Field<int32_t>(app, "-n,--n", sampling, &S::set_n, "sequences from one prompt; 1")->group(group);
  Field<int32_t>(app, "--logprobs", sampling, &S::set_logprobs,
                 "log-probabilities of each token and the n best (with --json)")
      ->group(group);
  Field<int32_t>(app, "--prompt-logprobs", sampling, &S::set_prompt_logprobs,
                 "the same for the prompt (with --json)")
      ->group(group);
}

void AddCommonFlags(CLI::App* app, Options& options, double& timeout_seconds) {
  app->add_option("--address", options.address, "the server, HOST:PORT")
      ->capture_default_str()
      ->envname("MOESAIC_ADDRESS");
  app->add_option("--timeout", timeout_seconds, "seconds to wait for the whole answer; 0: for ever")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
  app->add_flag("--json", options.json, "answer in JSON, one object a line");
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> ParseTokenIds(const std::string& text) {
  std::vector<int32_t> ids;
  const size_t first = text.find_first_not_of(" \t\n");
  bool after_comma = first != std::string::npos;  // the list may not begin with one either
  for (const char c : text) {
    if (c == ',' && after_comma) {
      return absl::InvalidArgumentError("a token id is missing before a comma");
    }
    if (c == ',') after_comma = true;
    if (std::string_view(", \t\n").find(c) == std::string_view::npos) after_comma = false;
  }
  if (after_comma) return absl::InvalidArgumentError("a token id is missing after the last comma");
  size_t pos = 0;
  while ((pos = text.find_first_not_of(", \t\n", pos)) != std::string::npos) {
    const size_t end = std::min(text.find_first_of(", \t\n", pos), text.size());
    const std::string word = text.substr(pos, end - pos);
    char* rest = nullptr;
    const long long id = std::strtoll(word.c_str(), &rest, 10);
    if (*rest != '\0' || id < 0 || id > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          StrCat("\"", word.substr(0, 40), "\" is no token id; expected numbers such as 1,15,7"));
    }
    ids.push_back(static_cast<int32_t>(id));
    pos = end;
  }
  return ids;
}

absl::Status SetPrompt(std::string text, Options& options) {
  if (options.prompt_is_ids) {
    MOESAIC_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, ParseTokenIds(text));
    if (ids.empty()) return absl::InvalidArgumentError("the prompt has no token ids");
    options.request.mutable_token_ids()->mutable_ids()->Add(ids.begin(), ids.end());
    return absl::OkStatus();
  }
  if (const auto offset = FindInvalidUtf8(text)) {
    return absl::InvalidArgumentError(StrCat("the text is not UTF-8 (byte ", *offset, ")"));
  }
  if (options.command == Command::kTokenize) {
    options.tokenize.set_text(std::move(text));
    return absl::OkStatus();
  }
  if (text.empty()) return absl::InvalidArgumentError("the prompt is empty");
  options.request.set_text(std::move(text));
  return absl::OkStatus();
}

absl::StatusOr<Options> ParseOptions(int argc, const char* const* argv) {
  Options options;
  double timeout_seconds = 0;
  std::string prompt;
  bool raw_special = false, no_special = false;

  CLI::App app(
      "Talks to a Moesaic server.\n\n"
      "  moesaic-cli generate \"violin\"                  stream an answer to the terminal\n"
      "  moesaic-cli generate --json \"violin\"            one JSON object for each message\n"
      "  moesaic-cli generate --ids 17,4,99             token ids in, token ids out\n"
      "  echo \"violin\" | moesaic-cli generate           the prompt from standard input\n"
      "  moesaic-cli info                               what is served, and its limits\n"
      "  moesaic-cli health                             exit status 0 when it serves\n"
      "  moesaic-cli tokenize \"violin\"",
      "moesaic-cli");
  app.set_version_flag("--version", StrCat("moesaic-cli ", MOESAIC_VERSION));
  app.require_subcommand(1);

  CLI::App* generate =
      app.add_subcommand("generate", "Continue a prompt, writing text as it comes.");
  generate->add_option("prompt", prompt, "the prompt; left out or \"-\": standard input");
  generate->add_flag("--ids", options.prompt_is_ids,
                     "the prompt is token ids, separated by commas or blanks; the answer is "
                     "written as ids too");
  generate->add_flag("--stats", options.stats, "write tokens and times to standard error");
  generate->add_option_function<std::string>(
      "--model", [&options](const std::string& name) { options.request.set_model(name); },
      "refuse any other model than this");
  generate->add_option_function<std::string>(
      "--request-id", [&options](const std::string& id) { options.request.set_request_id(id); },
      "your name for the request, in the server's log");
  AddSamplingFlags(generate, options.request.mutable_sampling());
  CLI::App* info = app.add_subcommand("info", "Show the served model, its limits and its load.");
  CLI::App* health = app.add_subcommand("health", "Ask whether the server serves.");
  CLI::App* tokenize = app.add_subcommand("tokenize", "Show a text's token ids.");
  tokenize->add_option("text", prompt, "the text; left out or \"-\": standard input");
  for (CLI::App* command : {generate, tokenize}) {
    command->add_flag("--no-add-special-tokens", no_special,
                      "leave out the tokens that the tokenizer puts around a text");
    command->add_flag("--no-parse-special-tokens", raw_special,
                      "\"<|endoftext|>\" and its kin in the text are plain text");
  }
  for (CLI::App* command : {generate, info, health, tokenize}) {
    AddCommonFlags(command, options, timeout_seconds);
  }

  // CLI11 reports by exceptions; they end here.
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    for (CLI::App* command : {generate, info, health, tokenize}) {
      if (command->parsed()) options.text = command->help();
    }
    if (options.text.empty()) options.text = app.help();
    return options;
  } catch (const CLI::CallForVersion&) {
    options.text = StrCat("moesaic-cli ", MOESAIC_VERSION, "\n");
    return options;
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(StrCat(error.what(), "\nRun with --help for the commands."));
  }
  if (options.address.empty()) {
    return absl::InvalidArgumentError("--address is empty, expected HOST:PORT");
  }
  options.command = generate->parsed() ? Command::kGenerate
                    : info->parsed()   ? Command::kInfo
                    : health->parsed() ? Command::kHealth
                                       : Command::kTokenize;
  if (timeout_seconds > 0) options.timeout = absl::Seconds(timeout_seconds);
  if (no_special) {
    options.request.set_add_special_tokens(false);
    options.tokenize.set_add_special_tokens(false);
  }
  if (raw_special) {
    options.request.set_parse_special_tokens(false);
    options.tokenize.set_parse_special_tokens(false);
  }
  if (options.command == Command::kGenerate || options.command == Command::kTokenize) {
    const CLI::App* command = generate->parsed() ? generate : tokenize;
    options.read_stdin =
        command->get_option(generate->parsed() ? "prompt" : "text")->count() == 0 || prompt == "-";
    if (!options.read_stdin) MOESAIC_RETURN_IF_ERROR(SetPrompt(std::move(prompt), options));
  }
  return options;
}

}  // namespace moesaic::cli
