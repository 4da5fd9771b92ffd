#include "core/routing_trace.h"

#include <cstring>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/crc32.h"
#include "tests/core/routing_trace_files.h"

namespace moesaic {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string SmallTrace(bool has_weights = true) {
  const std::filesystem::path path = TracePath("small");
  WriteSmallTrace(path, has_weights);
  std::string bytes = FileBytes(path);
  std::filesystem::remove(path);
  return bytes;
}

template <typename T>
void Poke(std::string& bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

constexpr size_t kHeaderBytes = 40 + 5 + 4;  // of a model named "small"

void FixHeaderChecksum(std::string& bytes) {
  Poke(bytes, kHeaderBytes - 4, Crc32(std::as_bytes(std::span(bytes)).first(kHeaderBytes - 4)));
}

// The header of SmallTrace() and one records section with `payload`.
std::string WithPayload(const std::string& payload) {
  std::string bytes = SmallTrace(/*has_weights=*/false).substr(0, kHeaderBytes);
  const uint32_t fields[3] = {1, static_cast<uint32_t>(payload.size()),
                              Crc32(std::as_bytes(std::span(payload)))};
  bytes.append(reinterpret_cast<const char*>(fields), sizeof(fields));
  return bytes + payload;
}

std::string ErrorOf(const std::string& bytes) {
  const auto trace = ParseBytes(bytes);
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(trace.status().message());
  EXPECT_THAT(message, testing::StartsWith("routing trace t.trace: "));
  return message;
}

TEST(RoutingTraceTest, ReadsWhatWasWritten) {
  const auto trace = ParseBytes(SmallTrace());
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->header.model, "small");
  EXPECT_EQ(trace->header.fingerprint, 0x1234u);
  EXPECT_EQ(trace->header.num_layers, 2);
  EXPECT_EQ(trace->header.num_experts, 8);
  EXPECT_EQ(trace->header.top_k, 2);
  ASSERT_EQ(trace->requests.size(), 2u);
  EXPECT_EQ(trace->requests[0].id, 70u);
  EXPECT_EQ(trace->requests[0].tag, "chat");
  EXPECT_EQ(trace->requests[1].id, 900u);
  EXPECT_EQ(trace->requests[1].tag, "");
  ASSERT_EQ(trace->records.size(), 4u);
  const RoutingTrace::Record& record = trace->records[2];
  EXPECT_EQ(record.step, 11);
  EXPECT_EQ(record.layer, 1);
  EXPECT_THAT(trace->Experts(record), ElementsAre(0, 1, 6, 7));
  EXPECT_THAT(trace->Weights(record), ElementsAre(0.25f, 0.75f, 0.5f, 0.125f));
  ASSERT_EQ(trace->Runs(record).size(), 2u);
  EXPECT_EQ(trace->Runs(record)[1].request, 1u);
  EXPECT_EQ(trace->Runs(record)[1].first_position, 5);
  // Layers with the same rows share them.
  EXPECT_EQ(trace->records[0].first_run, trace->records[1].first_run);
  EXPECT_EQ(trace->records[3].step, 13);
  EXPECT_THAT(trace->Experts(trace->records[3]), ElementsAre(0, 7, 0, 7));
}

TEST(RoutingTraceTest, CountsTheRowsOfDistinctExperts) {
  const auto trace = ParseBytes(SmallTrace(/*has_weights=*/false));
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_TRUE(trace->Weights(trace->records[0]).empty());
  std::vector<ExpertRows> distinct;
  trace->DistinctExperts(trace->records[1], distinct);
  EXPECT_THAT(distinct, ElementsAre(ExpertRows{4, 1}, ExpertRows{5, 2}, ExpertRows{6, 1}));
  trace->DistinctExperts(trace->records[3], distinct);
  EXPECT_THAT(distinct, ElementsAre(ExpertRows{0, 2}, ExpertRows{7, 2}));
}

TEST(RoutingTraceTest, NamesTheFileAndWhatItExpected) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("expected it to begin with MOETRACE"));
  EXPECT_THAT(ErrorOf("PK\3\4 something else"), HasSubstr("not a routing trace"));
  std::string bytes = SmallTrace();
  Poke<uint32_t>(bytes, 8, 2);
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("version 2, expected 1"));
  bytes = SmallTrace();
  Poke<uint32_t>(bytes, 28, 9);
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("the header is damaged"));
  EXPECT_THAT(ErrorOf(SmallTrace() + "x"), HasSubstr("1 bytes follow the end section"));
  bytes = SmallTrace();
  Poke<uint32_t>(bytes, kHeaderBytes, 9);
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("unknown section 9"));
  bytes = SmallTrace();
  Poke<uint32_t>(bytes, kHeaderBytes + 4, 0xffffffff);
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("a section of 4294967295 bytes"));
}

TEST(RoutingTraceTest, RefusesShapesThatCannotBe) {
  const auto with = [](size_t at, uint32_t value) {
    std::string bytes = SmallTrace();
    Poke(bytes, at, value);
    FixHeaderChecksum(bytes);
    return ErrorOf(bytes);
  };
  EXPECT_THAT(with(12, 2), HasSubstr("unknown flags 2"));
  EXPECT_THAT(with(24, 0), HasSubstr("0 layers, expected 1 to 65536"));
  EXPECT_THAT(with(28, 0xffffffff), HasSubstr("experts, expected 1 to 65536"));
  EXPECT_THAT(with(32, 9), HasSubstr("9 experts of a row, expected 1 to 8"));
  std::string bytes = SmallTrace();
  Poke<uint32_t>(bytes, 36, 1u << 30);
  EXPECT_THAT(ErrorOf(bytes), HasSubstr("a model name of 1073741824 bytes"));
}

TEST(RoutingTraceTest, CutShortAnywhereIsAnError) {
  const std::string bytes = SmallTrace();
  for (size_t size = 8; size < bytes.size(); ++size) {
    EXPECT_THAT(ErrorOf(bytes.substr(0, size)), HasSubstr("cut short")) << size;
  }
}

TEST(RoutingTraceTest, EveryFlippedBitIsAnError) {
  const std::string bytes = SmallTrace();
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    std::string damaged = bytes;
    damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(ParseBytes(damaged).ok()) << bit;
  }
}

TEST(RoutingTraceTest, ChecksEveryNumberOfARecord) {
  const std::string request("\0\7\0", 3);  // id 7, no tag
  EXPECT_THAT(ErrorOf(WithPayload("\5")), HasSubstr("record 0, byte 61: unknown operation 5"));
  EXPECT_THAT(ErrorOf(WithPayload(std::string("\0\7\x64", 3))), HasSubstr("request's id and tag"));
  EXPECT_THAT(ErrorOf(WithPayload(request + request)), HasSubstr("request 7 is declared twice"));
  EXPECT_THAT(ErrorOf(WithPayload(std::string("\2\0\0", 3))),
              HasSubstr("the first record has no rows of its own"));
  EXPECT_THAT(ErrorOf(WithPayload(std::string("\1\0\2", 3))), HasSubstr("a layer below 2"));
  EXPECT_THAT(ErrorOf(WithPayload("\1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\1")),
              HasSubstr("expected a step"));
  EXPECT_THAT(ErrorOf(WithPayload(request + std::string("\1\0\0\0", 4))),
              HasSubstr("expected the number of runs"));
  EXPECT_THAT(ErrorOf(WithPayload(request + std::string("\1\0\0\1\1\0\1", 7))),
              HasSubstr("request 1 of a run, expected one of the 1"));
  EXPECT_THAT(ErrorOf(WithPayload(request + std::string("\1\0\0\1\0\0\0", 7))),
              HasSubstr("expected a run's request, position and number of rows"));
  // A false number of rows must not be believed.
  EXPECT_THAT(ErrorOf(WithPayload(request + std::string("\1\0\0\1\0\0\xff\xff\xff\xff\7", 11))),
              HasSubstr("ends inside the experts of 2147483647 rows"));
  // Gaps of more experts than there are.
  EXPECT_THAT(ErrorOf(WithPayload(request + std::string("\1\0\0\1\0\0\1\xff", 8))),
              HasSubstr("row 0 names expert"));
  // The same layer twice in a step.
  const std::string record("\1\0\0\1\0\0\1\0", 8);
  EXPECT_THAT(ErrorOf(WithPayload(request + record + std::string("\2\0\0\0", 4))),
              HasSubstr("layer 0 after layer 0"));
}

TEST(RoutingTraceTest, StaysWithinTheMemoryAllowed) {
  EXPECT_EQ(ParseBytes(SmallTrace(), 100).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(RoutingTraceTest, SaysWhichFileIsMissing) {
  const auto trace = ReadRoutingTrace("/nonexistent/x.trace");
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(trace.status().message()), HasSubstr("/nonexistent/x.trace"));
  EXPECT_FALSE(ReadRoutingTrace(testing::TempDir()).ok());
}

}  // namespace
}  // namespace moesaic
