#pragma once

namespace moesaic {

class ThreadPool;

// Where an operator runs. On the CPU the call returns when the work is done on `pool`; on a GPU
// `native` is the driver's stream and the call returns when the work is queued. A borrowed handle,
// owned by the device.
struct Stream {
  ThreadPool* pool = nullptr;
  void* native = nullptr;
};

}  // namespace moesaic
