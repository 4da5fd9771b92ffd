#pragma once

namespace moesaic {

// Sets up logging to standard error for the whole process: one line per event, as text or as a JSON
// object with time, level and message.
void SetUpLogging(bool json);

}  // namespace moesaic
