#include "server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

namespace moesaic {
namespace {

using testing::HasSubstr;

absl::StatusOr<ServerCommand> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "moesaic-server");
  return ParseServerCommand(static_cast<int>(arguments.size()), arguments.data());
}

std::string Message(const absl::StatusOr<ServerCommand>& command) {
  return std::string(command.status().message());
}

TEST(ConfigTest, HasTheDocumentedDefaults) {
  const auto command = Parse({"--model", "m"});
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->kind, ServerCommand::Kind::kServe);
  const ServerConfig& config = command->config;
  EXPECT_EQ(config.bind, "127.0.0.1");
  EXPECT_EQ(config.grpc_port, 8001);
  EXPECT_EQ(config.metrics_port, 8002);
  EXPECT_TRUE(config.prefix_cache);
  EXPECT_EQ(config.kv_memory_bytes, 0);
}

TEST(ConfigTest, ReadsEveryKindOfFlag) {
  const auto command = Parse({"--model", "m", "--kv-memory", "2GiB", "--no-prefix-cache",
                              "--drain-timeout", "1.5", "--max-sequences", "16", "--max-queue", "0",
                              "--log-format", "json", "--dtype", "float32", "--grpc-port", "0"});
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->config.kv_memory_bytes, int64_t{2} << 30);
  EXPECT_FALSE(command->config.prefix_cache);
  EXPECT_EQ(command->config.drain_timeout, absl::Milliseconds(1500));
  EXPECT_EQ(command->config.max_sequences, 16);
  EXPECT_EQ(command->config.max_queue, 0);
  EXPECT_TRUE(command->config.log_json);
  EXPECT_EQ(command->config.grpc_port, 0);
}

TEST(ConfigTest, CommandLineWinsOverFileAndFileOverEnvironment) {
  const std::string file = testing::TempDir() + "/moesaic_config_test.conf";
  std::ofstream(file) << "model = from-file\nmax-queue = 7\nkv-memory = 1MiB\n";
  setenv("MOESAIC_MODEL", "from-environment", 1);
  setenv("MOESAIC_MAX_SEQUENCES", "5", 1);
  setenv("MOESAIC_NO_PREFIX_CACHE", "true", 1);
  const auto command = Parse({"--config", file.c_str(), "--max-queue", "9"});
  unsetenv("MOESAIC_MODEL");
  unsetenv("MOESAIC_MAX_SEQUENCES");
  unsetenv("MOESAIC_NO_PREFIX_CACHE");
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->config.model, "from-file");
  EXPECT_EQ(command->config.max_queue, 9);
  EXPECT_EQ(command->config.max_sequences, 5);
  EXPECT_EQ(command->config.kv_memory_bytes, 1 << 20);
  EXPECT_FALSE(command->config.prefix_cache);
}

TEST(ConfigTest, RefusesWhatItDoesNotKnow) {
  EXPECT_THAT(Message(Parse({})), HasSubstr("--model is required"));
  EXPECT_FALSE(Parse({"--model", "m", "--no-such-flag"}).ok());
  EXPECT_FALSE(Parse({"--model", "m", "--grpc-port", "70000"}).ok());
  EXPECT_FALSE(Parse({"--model", "m", "--max-sequences", "0"}).ok());
  EXPECT_FALSE(Parse({"--model", "m", "--dtype", "int4"}).ok());
  EXPECT_THAT(Message(Parse({"--model", "m", "--kv-memory", "lots"})), HasSubstr("2GiB"));
  EXPECT_FALSE(Parse({"--model", "m", "--drain-timeout", "-1"}).ok());
  EXPECT_FALSE(Parse({"--model", "m", "--max-receive-message", "1"}).ok());
  const std::string file = testing::TempDir() + "/moesaic_config_unknown.conf";
  std::ofstream(file) << "model = m\nno-such-flag = 1\n";
  EXPECT_THAT(Message(Parse({"--config", file.c_str()})),
              HasSubstr(file + ": there is no flag \"no-such-flag\""));
}

TEST(ConfigTest, SaysThatThereIsNoCudaBackend) {
  EXPECT_THAT(Message(Parse({"--model", "m", "--device", "cuda:0"})), HasSubstr("no CUDA backend"));
  EXPECT_TRUE(Parse({"--model", "m", "--device", "cpu"}).ok());
}

TEST(ConfigTest, ReadsHowExpertsAreKept) {
  const auto defaults = Parse({"--model", "m"});
  ASSERT_TRUE(defaults.ok());
  EXPECT_EQ(defaults->config.expert_memory.kind, ExpertBudget::Kind::kAuto);
  EXPECT_EQ(defaults->config.host_memory_bytes, 0);
  const auto command = Parse({"--model", "m", "--expert-memory", "12.5%", "--host-memory", "1GiB",
                              "--pack-dir", "/packs", "--expert-policy", "lru", "--record-routing",
                              "r", "--replay-routing", "p", "--replay-prefetch-layers", "2"});
  ASSERT_TRUE(command.ok()) << command.status();
  const ServerConfig& config = command->config;
  EXPECT_EQ(config.expert_memory.kind, ExpertBudget::Kind::kPercent);
  EXPECT_EQ(config.expert_memory.percent, 12.5);
  EXPECT_EQ(config.host_memory_bytes, 1 << 30);
  EXPECT_EQ(config.pack_dir, "/packs");
  EXPECT_EQ(config.expert_policy, ExpertPolicyKind::kLru);
  EXPECT_EQ(config.record_routing, "r");
  EXPECT_EQ(config.replay_routing, "p");
  EXPECT_EQ(config.oracle_layers, 2);
  const auto bytes = Parse({"--model", "m", "--expert-memory", "2GiB"});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  EXPECT_EQ(bytes->config.expert_memory.kind, ExpertBudget::Kind::kBytes);
  EXPECT_EQ(bytes->config.expert_memory.bytes, int64_t{2} << 30);
  const auto automatic = Parse({"--model", "m", "--expert-memory", "auto"});
  ASSERT_TRUE(automatic.ok()) << automatic.status();
  EXPECT_EQ(automatic->config.expert_memory.kind, ExpertBudget::Kind::kAuto);
}

TEST(ConfigTest, RefusedExpertFlagsAreNamed) {
  const std::pair<const char*, const char*> bad[] = {
      {"--expert-memory", "0%"},          {"--expert-memory", "101%"},
      {"--expert-memory", "nan%"},        {"--expert-memory", "%"},
      {"--expert-memory", "5 %%"},        {"--expert-memory", "lots"},
      {"--expert-memory", "-1"},          {"--host-memory", "auto"},
      {"--host-memory", "many"},          {"--expert-policy", "belady"},
      {"--expert-policy", "future"},      {"--expert-policy", "random"},
      {"--replay-prefetch-layers", "-1"}, {"--replay-prefetch-layers", "x"}};
  for (const auto& [flag, value] : bad) {
    const auto command = Parse({"--model", "m", flag, value});
    EXPECT_FALSE(command.ok()) << flag << " " << value;
    EXPECT_THAT(Message(command), HasSubstr(flag)) << value;
  }
  EXPECT_THAT(Message(Parse({"--model", "m", "--expert-policy", "belady"})),
              HasSubstr("moesaic-bench"));
}

TEST(ConfigTest, HelpNamesEachFlagWithItsDefault) {
  const auto command = Parse({"--help"});
  ASSERT_TRUE(command.ok());
  EXPECT_EQ(command->kind, ServerCommand::Kind::kPrint);
  for (const char* text : {"--model", "--kv-memory", "--grpc-port", "8001", "--drain-timeout",
                           "--max-receive-message", "16.0 MiB", "--healthcheck"}) {
    EXPECT_THAT(command->text, HasSubstr(text));
  }
}

TEST(ConfigTest, HealthCheckNeedsNoModel) {
  const auto command = Parse({"--healthcheck", "--grpc-port", "9"});
  ASSERT_TRUE(command.ok());
  EXPECT_EQ(command->kind, ServerCommand::Kind::kHealthCheck);
  EXPECT_EQ(command->config.grpc_port, 9);
}

TEST(ConfigTest, ParsesByteSizes) {
  EXPECT_EQ(*ParseByteSize("4096"), 4096);
  EXPECT_EQ(*ParseByteSize("1.5GB"), 1500000000);
  EXPECT_EQ(*ParseByteSize("512 MiB"), int64_t{512} << 20);
  for (const char* bad : {"", "-1", "GiB", "1XB", "1e30", "nan", "inf", "0x10G "}) {
    EXPECT_FALSE(ParseByteSize(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace moesaic
