// moesaic-bench: load generation against a running server, and routing traces.

#include "tools/bench/commands.h"

int main(int argc, char** argv) { return moesaic::bench::RunCommandLine(argc, argv); }
