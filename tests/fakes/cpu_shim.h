// What nvcc gives a kernel, for a C++ compiler: enough to run labelmap.cu on the CPU, a thread
// after another. Compile with -ffp-contract=off: the intrinsics below are not to be fused.
#include <cstring>

#define __device__
#define __global__

struct Place {
    int x, y, z;
};
static Place blockIdx, blockDim, gridDim, threadIdx;

static float __fmul_rn(float a, float b) { return a * b; }
static float __fadd_rn(float a, float b) { return a + b; }
static float __fsub_rn(float a, float b) { return a - b; }
static float __fdiv_rn(float a, float b) { return a / b; }
static float __uint_as_float(unsigned int bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static unsigned int __float_as_uint(float value) {
    unsigned int bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

#include "labelmap.cu"

template <typename K, typename... A>
static void over_the_grid(K kernel, int gx, int gy, int bx, int by, A... arguments) {
    blockDim = {bx, by, 1};
    gridDim = {gx, gy, 1};
    for (int j = 0; j < gy; ++j)
        for (int i = 0; i < gx; ++i)
            for (int v = 0; v < by; ++v)
                for (int u = 0; u < bx; ++u) {
                    blockIdx = {i, j, 0};
                    threadIdx = {u, v, 0};
                    kernel(arguments...);
                }
}

extern "C" void run_float(int gx, int gy, int bx, int by, const float *logits, int classes, int h,
                          int w, unsigned char *labels, int height, int width, int *flag,
                          int centred) {
    over_the_grid(label_map_float, gx, gy, bx, by, logits, classes, h, w, labels, height, width,
                  flag, centred);
}

extern "C" void run_half(int gx, int gy, int bx, int by, const unsigned short *logits, int classes,
                         int h, int w, unsigned char *labels, int height, int width, int *flag,
                         int centred) {
    over_the_grid(label_map_half, gx, gy, bx, by, logits, classes, h, w, labels, height, width,
                  flag, centred);
}

extern "C" void run_check(int gx, int gy, int bx, int by, const unsigned char *labels, int height,
                          int width, int classes, int *flag) {
    over_the_grid(check_labels, gx, gy, bx, by, labels, height, width, classes, flag);
}
