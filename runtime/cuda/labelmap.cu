// From logits on a coarse grid to the label map of one image, in one pass: bilinear, the class of
// largest value, the lowest index on a tie.
//
// It computes what runtime/labelmap.py's label_map_dense computes, operation by operation in
// float32, so that both give the same bytes: whole numbers for the positions, one correctly
// rounded division for the weight, and no product fused with a sum (the intrinsics forbid it).
// No header and no template library: NVRTC compiles it without the CUDA toolkit.
//
//   logits   C x h x w of the image, contiguous; float, or half as 16 bits
//   labels   height x width bytes
//   flag     is set to 1 where a logit is infinite or not a number: the label map says nothing then
//   centred  0: the corners of the grid and of the label map lie on one another; 1: their edges do
//            (half-pixel centres)
//   grid     (ceil(width / 32), ceil(height / 8)) blocks of 32 x 8 threads, one a pixel
// A position, (h - 1) * (height - 1) or centred 2 * h * height, must fit 31 bits.
//
// Another kernel holds a label map that the network has made itself to its number of classes.

// A half's bits moved into a float's places are its value over 2^112, also where it is denormal.
__device__ static float widen(unsigned short bits) {
    unsigned int moved = (unsigned int)(bits & 0x7fff) << 13;
    float value = __uint_as_float(moved) * 5.192296858534828e33f;
    return bits & 0x8000 ? -value : value;
}

__device__ static float widen(float value) { return value; }

// The near corner's index on one axis, and the weight of the far one.
__device__ static int place(int pixel, int grid, int pixels, int centred, float *weight) {
    int last = pixels > 1 ? pixels - 1 : 1;
    int cells = grid > 1 ? grid - 1 : 1;
    int position = pixel * (grid - 1);
    if (centred) {
        last = 2 * pixels;
        position = (2 * pixel + 1) * grid - pixels;
        if (position < 0) position = 0;
        if (position > last * (grid - 1)) position = last * (grid - 1);
    }
    int cell = position / last;
    if (cell > cells - 1) cell = cells - 1;
    // Exact operands below 2^24 make this the double quotient rounded to float, too.
    *weight = __fdiv_rn((float)(position - cell * last), (float)last);
    return cell;
}

__device__ static float mix(float near, float far, float weight) {
    return __fadd_rn(__fmul_rn(near, __fsub_rn(1.0f, weight)), __fmul_rn(far, weight));
}

// Whether a value is infinite or not a number: all bits of its exponent are set.
__device__ static bool not_finite(float value) {
    return (__float_as_uint(value) & 0x7f800000u) == 0x7f800000u;
}

__device__ static bool not_finite(unsigned short bits) { return (bits & 0x7c00) == 0x7c00; }

// The share of one thread in `count` things, neighbours beside neighbours: from its place on, a
// thing every `step`.
__device__ static long long share(long long *step) {
    long long row = (long long)gridDim.x * blockDim.x;
    *step = row * gridDim.y * blockDim.y;
    return row * (blockIdx.y * blockDim.y + threadIdx.y) + blockIdx.x * blockDim.x + threadIdx.x;
}

template <typename T>
__device__ static void label(const T *logits, int classes, int h, int w, unsigned char *labels,
                             int height, int width, int *flag, int centred) {
    // Each logit once, by whichever thread: as on the CPU also those that lose, and those beside
    // which a label map smaller than the grid has no pixel. Whoever finds one writes the same.
    long long step, count = (long long)classes * h * w;
    for (long long i = share(&step); i < count; i += step)
        if (not_finite(logits[i])) *flag = 1;
    int x = blockIdx.x * blockDim.x + threadIdx.x;
    int y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height) return;
    float down, right;
    int row = place(y, h, height, centred, &down);
    int column = place(x, w, width, centred, &right);
    int below = h > 1 ? w : 0, beside = w > 1 ? 1 : 0;
    const T *corner = logits + (long long)row * w + column;
    long long plane = (long long)h * w;
    float best = 0.0f;
    int found = 0;
    for (int k = 0; k < classes; ++k, corner += plane) {
        float left = mix(widen(corner[0]), widen(corner[below]), down);
        float other = mix(widen(corner[beside]), widen(corner[below + beside]), down);
        float value = mix(left, other, right);
        if (k == 0 || value > best) {
            best = value;
            found = k;
        }
    }
    labels[(long long)y * width + x] = (unsigned char)found;
}

extern "C" __global__ void label_map_float(const float *logits, int classes, int h, int w,
                                           unsigned char *labels, int height, int width,
                                           int *flag, int centred) {
    label(logits, classes, h, w, labels, height, width, flag, centred);
}

extern "C" __global__ void label_map_half(const unsigned short *logits, int classes, int h, int w,
                                          unsigned char *labels, int height, int width,
                                          int *flag, int centred) {
    label(logits, classes, h, w, labels, height, width, flag, centred);
}

// Sets the flag where one of height x width labels is not below the number of classes.
extern "C" __global__ void check_labels(const unsigned char *labels, int height, int width,
                                        int classes, int *flag) {
    long long step, count = (long long)height * width;
    for (long long i = share(&step); i < count; i += step)
        if (labels[i] >= classes) *flag = 1;
}
