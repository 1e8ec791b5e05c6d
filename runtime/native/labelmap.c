// From logits on a coarse grid to rows of the label map: what runtime/labelmap.py's NumPy way
// returns, to the byte. Plain C without Python's interface, loaded by ctypes.
//
// A cell of the grid whose four corners are of one class is filled with it. The others' pixels
// are worked out as NumPy does it, operation by operation in float32: no product may be fused
// with a sum, hence -ffp-contract=off. LANES pieces of cells are worked on at a time, the logits of
// their corners gathered first; the loops over LANES are for the compiler to turn into vectors.
// They choose by masks, since GCC takes a choice between whole numbers for a branch, and gives up.

#include <float.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if FLT_EVAL_METHOD != 0 || defined(__FAST_MATH__)
#error "needs float32 arithmetic that rounds after every operation"
#endif

enum {
    LANES = 32,     // the fastest of 16, 32 and 64 on real frames
    PIECE = 8,      // the most columns of a piece: a wider cell is cut into several
    CLASSES = 255,  // the most that a byte can name beside the label maps' own 255
    BLOCK = 128,    // columns of the grid whose winners are found in one go: fits the L1 cache
    INFINITE = 0x7f800000,  // the bits of an infinite float
};

// A hot function is compiled for several processors and the loader picks, where that is possible.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

typedef struct {
    const float *logits;        // classes x h x w in the steps below
    const float *row_weight;    // a pixel's weight of its cell's far corner, in [0, 1]; this and the
                                // next three are NULL where each logit is a pixel
    const float *column_weight;
    const ptrdiff_t *row_first;    // a cell's first pixel; one more entry at the end
    const ptrdiff_t *column_first;
    uint8_t *labels;            // height x width
    ptrdiff_t classes, h, w, height, width;
    ptrdiff_t class_step, row_step, column_step;  // from logit to logit, in floats
} Job;

// Up to LANES pieces of mixed cells of one row of cells.
typedef struct {
    int pieces;
    ptrdiff_t cell[LANES];      // the column of the cell
    ptrdiff_t x[LANES];         // the first pixel's column
    int columns[LANES];         // 1 to PIECE; 0 in a lane without a piece
    float far[PIECE][LANES];    // the weights of the columns' far corners
    float near[PIECE][LANES];
    float left[CLASSES][2][LANES];   // the logits of the corners: near row, far row
    float right[CLASSES][2][LANES];
} Chunk;

// A float's bits without its sign: INFINITE or more for what is infinite or not a number.
static inline int32_t magnitude(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits & 0x7fffffff;
}

// The class of largest logit of each column of one row of the grid; the lowest of equals. Returns
// whether all of these logits, not only the largest, are numbers and none is infinite.
FOR_EACH_PROCESSOR
static int find_winners(const Job *job, ptrdiff_t row, uint8_t *winner) {
    int32_t largest = 0;
    float best[BLOCK], other[BLOCK];
    int32_t found[BLOCK];
    for (ptrdiff_t start = 0; start < job->w; start += BLOCK) {
        int count = job->w - start < BLOCK ? (int)(job->w - start) : BLOCK;
        const float *line = job->logits + row * job->row_step + start * job->column_step;
        for (int i = 0; i < count; ++i) {
            best[i] = line[i * job->column_step];
            found[i] = 0;
            largest = magnitude(best[i]) > largest ? magnitude(best[i]) : largest;
        }
        for (int32_t k = 1; k < job->classes; ++k) {
            line += job->class_step;
            const float *value = line;
            if (job->column_step != 1) {
                for (int i = 0; i < count; ++i) other[i] = line[i * job->column_step];
                value = other;
            }
            for (int i = 0; i < count; ++i) {
                int32_t more = -(value[i] > best[i]);  // all bits, or none
                found[i] = (found[i] & ~more) | (k & more);
                best[i] = value[i] > best[i] ? value[i] : best[i];
                int32_t bits = magnitude(value[i]);
                largest = bits > largest ? bits : largest;
            }
        }
        for (int i = 0; i < count; ++i) winner[start + i] = (uint8_t)found[i];
    }
    return largest < INFINITE;
}

// One row of pixels of the pieces: interpolates every class, and keeps the largest.
FOR_EACH_PROCESSOR
static void label_pieces(const Chunk *chunk, ptrdiff_t classes, float weight, int columns,
                         int32_t found[PIECE][LANES]) {
    float best[PIECE][LANES];
    float other = 1.0f - weight;
    for (int32_t k = 0; k < classes; ++k) {
        float left[LANES], right[LANES];
        for (int i = 0; i < LANES; ++i) {
            left[i] = chunk->left[k][0][i] * other + chunk->left[k][1][i] * weight;
            right[i] = chunk->right[k][0][i] * other + chunk->right[k][1][i] * weight;
        }
        for (int dx = 0; dx < columns; ++dx) {
            if (k == 0) {
                for (int i = 0; i < LANES; ++i) {
                    best[dx][i] = left[i] * chunk->near[dx][i] + right[i] * chunk->far[dx][i];
                    found[dx][i] = 0;
                }
                continue;
            }
            for (int i = 0; i < LANES; ++i) {
                float value = left[i] * chunk->near[dx][i] + right[i] * chunk->far[dx][i];
                int32_t more = -(value > best[dx][i]);
                found[dx][i] = (found[dx][i] & ~more) | (k & more);
                best[dx][i] = value > best[dx][i] ? value : best[dx][i];
            }
        }
    }
}

// Works out and writes the chunk's pixels in rows [y, stop), which lie in one row of cells.
static void fill_chunk(const Job *job, ptrdiff_t row, ptrdiff_t y, ptrdiff_t stop, Chunk *chunk) {
    int32_t found[PIECE][LANES];
    ptrdiff_t below = job->h > 1 ? job->row_step : 0;
    ptrdiff_t beside = job->w > 1 ? job->column_step : 0;
    int columns = 0;
    for (int i = chunk->pieces; i < LANES; ++i) {
        chunk->cell[i] = chunk->cell[0];
        chunk->x[i] = chunk->x[0];
        chunk->columns[i] = 0;
    }
    for (int i = 0; i < chunk->pieces; ++i)
        if (chunk->columns[i] > columns) columns = chunk->columns[i];
    for (int dx = 0; dx < columns; ++dx) {
        for (int i = 0; i < LANES; ++i) {
            int offset = dx < chunk->columns[i] ? dx : 0;
            chunk->far[dx][i] = job->column_weight[chunk->x[i] + offset];
            chunk->near[dx][i] = 1.0f - chunk->far[dx][i];
        }
    }
    const float *line = job->logits + row * job->row_step;
    for (ptrdiff_t k = 0; k < job->classes; ++k, line += job->class_step) {
        for (int i = 0; i < LANES; ++i) {
            const float *corner = line + chunk->cell[i] * job->column_step;
            chunk->left[k][0][i] = corner[0];
            chunk->left[k][1][i] = corner[below];
            chunk->right[k][0][i] = corner[beside];
            chunk->right[k][1][i] = corner[below + beside];
        }
    }
    for (; y < stop; ++y) {
        label_pieces(chunk, job->classes, job->row_weight[y], columns, found);
        uint8_t *line = job->labels + y * job->width;
        for (int i = 0; i < chunk->pieces; ++i)
            for (int dx = 0; dx < chunk->columns[i]; ++dx)
                line[chunk->x[i] + dx] = (uint8_t)found[dx][i];
    }
    chunk->pieces = 0;
}

// Gives every pixel of rows [y, stop) the class of its cell's near corner: runs of cells in the
// first row, which is then repeated.
static void spread(const Job *job, const uint8_t *winner, ptrdiff_t y, ptrdiff_t stop) {
    ptrdiff_t cells = job->w > 1 ? job->w - 1 : 1;
    uint8_t *line = job->labels + y * job->width;
    for (ptrdiff_t start = 0, end; start < cells; start = end) {
        for (end = start + 1; end < cells && winner[end] == winner[start]; ++end) {}
        ptrdiff_t first = job->column_first[start];
        memset(line + first, winner[start], (size_t)(job->column_first[end] - first));
    }
    for (++y; y < stop; ++y) memcpy(job->labels + y * job->width, line, (size_t)job->width);
}

// Rows [y, stop) of the label map, which lie in one row of cells.
static void fill_rows(const Job *job, ptrdiff_t row, const uint8_t *near, const uint8_t *far,
                      ptrdiff_t y, ptrdiff_t stop, Chunk *chunk) {
    ptrdiff_t beside = job->w > 1 ? 1 : 0, cells = job->w > 1 ? job->w - 1 : 1;
    spread(job, near, y, stop);
    for (ptrdiff_t cell = 0; cell < cells; ++cell) {
        uint8_t first = near[cell];
        if (first == near[cell + beside] && first == far[cell] && first == far[cell + beside])
            continue;
        ptrdiff_t end = job->column_first[cell + 1];
        for (ptrdiff_t x = job->column_first[cell]; x < end; x += PIECE) {
            chunk->cell[chunk->pieces] = cell;
            chunk->x[chunk->pieces] = x;
            chunk->columns[chunk->pieces] = end - x < PIECE ? (int)(end - x) : PIECE;
            if (++chunk->pieces == LANES) fill_chunk(job, row, y, stop, chunk);
        }
    }
    if (chunk->pieces) fill_chunk(job, row, y, stop, chunk);
}

// Whether the logits of a grid's row take part in a label map. Of one with fewer rows than the grid
// some do not.
static int is_read(const Job *job, ptrdiff_t row) {
    const ptrdiff_t *first = job->row_first;
    ptrdiff_t cells = job->h > 1 ? job->h - 1 : 1;
    return (row < cells && first[row] < first[row + 1]) || (row > 0 && first[row - 1] < first[row]);
}

// Works out bands of `band` rows of pixels, each taken from `next` until none is left, so that
// several threads may share a job. Returns 0; 1 where it got no memory and took no band; 2 where a
// logit is not finite, and then its bands are not all done. Every logit is looked at, also of the
// rows that take no part: whether a network has overflowed is not to hang on the label map's size.
int icnet_label_bands_4(const Job *job, ptrdiff_t band, atomic_int *next) {
    Chunk *chunk = malloc(sizeof(Chunk));
    uint8_t *winners = malloc(2 * (size_t)job->w);
    if (!chunk || !winners) {
        free(chunk);
        free(winners);
        return 1;
    }
    chunk->pieces = 0;
    uint8_t *near = winners, *far = winners + job->w;
    ptrdiff_t bands = (job->height + band - 1) / band, far_row = -1;
    int finite = 1;
    for (ptrdiff_t i; finite && (i = atomic_fetch_add(next, 1)) < bands;) {
        ptrdiff_t y = i * band, end = y + band < job->height ? y + band : job->height, row = 0;
        if (!job->row_weight) {
            for (; y < end; ++y) finite &= find_winners(job, y, job->labels + y * job->width);
            continue;
        }
        while (y < end) {
            while (job->row_first[row + 1] <= y) ++row;
            ptrdiff_t stop = job->row_first[row + 1] < end ? job->row_first[row + 1] : end;
            if (far_row == row) {
                uint8_t *other = near;
                near = far;
                far = other;
            } else {
                finite &= find_winners(job, row, near);
            }
            far_row = job->h > 1 ? row + 1 : row;
            finite &= find_winners(job, far_row, far);
            fill_rows(job, row, near, far, y, stop, chunk);
            y = stop;
        }
        for (row = i * job->h / bands; row < (i + 1) * job->h / bands; ++row)
            if (!is_read(job, row)) finite &= find_winners(job, row, near);
    }
    free(chunk);
    free(winners);
    return finite ? 0 : 2;
}
