#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include <grpcpp/channel.h>
#include <grpcpp/create_channel.h>

#include "base/str_cat.h"
#include "server/server.h"
#include "tests/server/fake_engine.h"

namespace moesaic {

// A server on free ports with a fake engine, and a channel to it.
class ServerFixture : public testing::Test {
 protected:
  void StartServer(ServerConfig config, int32_t max_model_len = 1000) {
    config.grpc_port = 0;
    config.metrics_port = 0;
    absl::StatusOr<std::unique_ptr<Server>> server = Server::Start(config);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    ASSERT_TRUE(
        server_
            ->Serve(MakeFakeModel(config.max_sequences, config.max_queue, max_model_len, &engine_))
            .ok());
    channel_ = NewChannel();
  }

  std::shared_ptr<grpc::Channel> NewChannel() const {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    arguments.SetMaxReceiveMessageSize(-1);
    return grpc::CreateCustomChannel(StrCat("127.0.0.1:", server_->grpc_port()),
                                     grpc::InsecureChannelCredentials(), arguments);
  }

  std::unique_ptr<Server> server_;
  FakeEngine* engine_ = nullptr;  // borrowed from the server's model
  std::shared_ptr<grpc::Channel> channel_;
};

}  // namespace moesaic
