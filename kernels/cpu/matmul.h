#pragma once

// The blocking of a matrix product around an instruction set's microkernels, shared by the dense
// and the expert projections.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/cpu/microkernels.h"
#include "kernels/cpu/packing.h"

namespace moesaic::kernels {

// Rows of the left matrix, in the matrix's dtype: row i at index[i], or i without an index.
struct RowSource {
  const std::byte* data = nullptr;
  int64_t stride_bytes = 0;
  const int32_t* index = nullptr;
  int64_t rows = 0;

  const std::byte* row(int64_t i) const {
    return data + (index == nullptr ? i : index[i]) * stride_bytes;
  }
};

// Consecutive panels of a packed matrix, or of several that are multiplied as one of their summed
// depth: the stripes of an expert.
struct PanelRange {
  const PackedMatrix* matrix = nullptr;   // each segment's
  const void* const* segments = nullptr;  // where they are packed
  int64_t num_segments = 1;
  int64_t offset = 0;  // of panel 0 in every segment
  int64_t begin = 0;
  int64_t end = 0;

  const std::byte* panel(int64_t p, int64_t segment) const {
    return static_cast<const std::byte*>(segments[segment]) + offset + p * matrix->panel_bytes();
  }
};

// Memory to bring into L2 while a product runs: what the same worker multiplies next.
struct PrefetchTarget {
  const std::byte* data = nullptr;
  int64_t bytes = 0;
};

namespace matmul_internal {

// A tile's rows are copied side by side in blocks of at most this many bytes each, a cache line
// apart from a multiple of it so that they do not compete for one set of the cache.
inline constexpr int64_t kRowBlockBytes = 4096;
inline constexpr int64_t kRowBlockStride = kRowBlockBytes + 64;
// Panels multiplied before the next rows are taken: they stay in L2, and the copy of the rows is
// spread over them.
inline constexpr int64_t kGroupBytes = 384 << 10;
inline constexpr int64_t kMaxGroupPanels = 8;

// Whether a tile may read `rows` rows where they are: at most four share a set of an L1 cache whose
// ways are 4 KiB.
inline bool RowsFitCacheSets(int64_t rows, int64_t stride_bytes) {
  const int64_t step = std::min<int64_t>(stride_bytes & -stride_bytes, 4096);
  return rows * step <= 4 * 4096;
}

// Copies depth elements [begin, begin + count) of a tile's rows, widened if the tile wants that; an
// odd end is padded with a zero.
inline void CopyRows(const MatmulMicrokernels& kernels,
                     DType dtype,
                     const RowSource& source,
                     int64_t first_row,
                     int64_t rows,
                     int64_t begin,
                     int64_t count,
                     std::byte* block) {
  const int64_t bytes = static_cast<int64_t>(DTypeBytes(dtype));
  for (int64_t r = 0; r < rows; ++r) {
    const std::byte* row = source.row(first_row + r) + begin * bytes;
    std::byte* out = block + r * kRowBlockStride;
    if (dtype == DType::kBFloat16 && kernels.widened_bfloat16) {
      kernels.widen(reinterpret_cast<const uint16_t*>(row), count, reinterpret_cast<float*>(out));
      if (count % 2 != 0) reinterpret_cast<float*>(out)[count] = 0.0f;
    } else {
      std::memcpy(out, row, count * bytes);
      if (dtype == DType::kBFloat16 && count % 2 != 0) std::memset(out + count * bytes, 0, bytes);
    }
  }
}

// What each tile of a group prefetches. Weights that are read for the first time stream through: a
// tile prefetches a fixed distance ahead of itself. Weights that several blocks of rows read stay
// in L2, and meanwhile the next group's are fetched, a share with every tile.
class PrefetchPlan {
 public:
  // Tiles of panels [.., group_end), `tiles_per_row_block` of them for each block of rows; the next
  // group is of `group_panels`, and after the last one comes `next`.
  PrefetchPlan(const PanelRange& panels,
               int64_t group_end,
               int64_t group_panels,
               PrefetchTarget next,
               int64_t row_blocks,
               int64_t tiles_per_row_block)
      : panels_(panels),
        first_panel_(group_end),
        piece_bytes_(std::min(panels.end - group_end, group_panels) * panels.matrix->panel_bytes()),
        // Nobody fetched the first group.
        streaming_tiles_(
            row_blocks == 1 || group_end - group_panels <= panels.begin ? tiles_per_row_block : 0),
        tiles_(row_blocks * tiles_per_row_block - streaming_tiles_) {
    if (tiles_ == 0) return;
    if (piece_bytes_ == 0) {
      piece_ = next;
      lines_ = next.bytes / 64;
    } else {
      lines_ = panels.num_segments * piece_bytes_ / 64;
    }
  }

  // Fills the prefetch of the next tile, whose panel and steps are set.
  void Next(int64_t rows, int64_t vectors, TileArgs* tile) {
    if (streaming_tiles_ > 0) {
      --streaming_tiles_;
      // Found by measurement: with few rows the hardware runs ahead by itself and a longer distance
      // disturbs it; with more rows a tile is slower and the hardware gives up on it.
      const int64_t distance = rows <= 4 ? 1024 : 8192;
      tile->prefetch = static_cast<const std::byte*>(tile->panel) + distance;
      tile->prefetch_lines = tile->steps * vectors;
      return;
    }
    if (piece_.bytes == 0 && lines_ > 0) {
      piece_ = {panels_.panel(first_panel_, next_segment_++), piece_bytes_};
    }
    const int64_t lines = std::min(CeilDiv(lines_, tiles_), piece_.bytes / 64);
    tile->prefetch = piece_.data;
    tile->prefetch_lines = lines;
    piece_.data += lines * 64;
    piece_.bytes -= lines * 64;
    lines_ -= lines;
    --tiles_;
  }

 private:
  const PanelRange& panels_;
  const int64_t first_panel_;
  const int64_t piece_bytes_;  // of the next group in each segment
  int64_t streaming_tiles_;
  PrefetchTarget piece_ = {};
  int64_t next_segment_ = 0;
  int64_t lines_ = 0;
  int64_t tiles_;
};

}  // namespace matmul_internal

// A product that starts at zero.
struct FromZero {
  bool operator()(float*, int64_t, int64_t, int64_t) const { return false; }
};

// Rows times panels: element k of a row meets depth k of the segments joined in order. Calls
// epilogue(tile, first_row, rows, panel) once for every tile of rows x panels, with the sums in
// tile[rows][vectors(panel) * 16]. Before, prologue() of the same arguments may fill the tile with
// sums to continue and return true.
template <class Prologue, class Epilogue>
void MultiplyPanels(const MatmulMicrokernels& kernels,
                    const PanelRange& panels,
                    const RowSource& source,
                    PrefetchTarget next,
                    const Prologue& prologue,
                    const Epilogue& epilogue) {
  using namespace matmul_internal;
  const PackedMatrix& matrix = *panels.matrix;
  const bool widened = matrix.dtype == DType::kBFloat16 && kernels.widened_bfloat16;
  const auto& tiles = matrix.dtype == DType::kFloat32 ? kernels.float32 : kernels.bfloat16;
  const int64_t element_bytes =
      widened ? sizeof(float) : static_cast<int64_t>(DTypeBytes(matrix.dtype));

  const int64_t row_blocks = CeilDiv<int64_t>(source.rows, kernels.max_rows);
  const int64_t tile_rows = row_blocks == 0 ? 0 : CeilDiv(source.rows, row_blocks);
  const bool in_place = !widened && matrix.depth % matrix.step_elements() == 0 &&
                        (tile_rows == 1 || (source.index == nullptr &&
                                            RowsFitCacheSets(tile_rows, source.stride_bytes)));
  const int64_t block_depth = in_place ? matrix.depth : kRowBlockBytes / element_bytes;
  const int64_t depth_blocks = panels.num_segments * CeilDiv(matrix.depth, block_depth);
  const int64_t group_panels = std::clamp<int64_t>(
      kGroupBytes / (panels.num_segments * matrix.panel_bytes()), 1, kMaxGroupPanels);

  alignas(64) std::byte row_block[kMaxTileRows * kRowBlockStride];
  alignas(64) float sums[kMaxGroupPanels][kMaxTileRows * kPanelColumns];
  for (int64_t group = panels.begin; group < panels.end; group += group_panels) {
    const int64_t group_end = std::min(panels.end, group + group_panels);
    PrefetchPlan prefetch(panels, group_end, group_panels, next, row_blocks,
                          depth_blocks * (group_end - group));
    for (int64_t block = 0; block < row_blocks; ++block) {
      const int64_t first_row = block * source.rows / row_blocks;
      const int64_t rows = (block + 1) * source.rows / row_blocks - first_row;
      bool resume = false;
      for (int64_t p = group; p < group_end; ++p) {
        resume = prologue(sums[p - group], first_row, rows, p);
      }
      for (int64_t segment = 0; segment < panels.num_segments; ++segment) {
        const int64_t segment_begin = segment * matrix.depth;  // in the rows
        for (int64_t depth = 0; depth < matrix.depth; depth += block_depth) {
          const int64_t count = std::min(block_depth, matrix.depth - depth);
          TileArgs tile;
          if (in_place) {
            tile.a = source.row(first_row) + segment_begin * element_bytes;
            tile.a_stride_bytes = source.stride_bytes;
          } else {
            CopyRows(kernels, matrix.dtype, source, first_row, rows, segment_begin + depth, count,
                     row_block);
            tile.a = row_block;
            tile.a_stride_bytes = kRowBlockStride;
          }
          tile.steps = CeilDiv(count, matrix.step_elements());
          tile.resume = resume;
          resume = true;
          for (int64_t p = group; p < group_end; ++p) {
            const int64_t vectors = matrix.vectors(p);
            tile.panel = panels.panel(p, segment) + depth / matrix.step_elements() * vectors * 64;
            prefetch.Next(rows, vectors, &tile);
            tile.acc = sums[p - group];
            tiles[vectors - 1][rows - 1](tile);
          }
        }
      }
      for (int64_t p = group; p < group_end; ++p) epilogue(sums[p - group], first_row, rows, p);
    }
  }
}

}  // namespace moesaic::kernels
