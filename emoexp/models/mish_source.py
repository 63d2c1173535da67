"""The compiled form of Mish and its gradient, in C++. It includes one header and is compiled in 0.2 s.

With e = exp(min(x, 20)) and n = e (e + 2):

    mish(x) = x n / (n + 2),    mish'(x) = n / (n + 2) + 4 x e (e + 1) / (n + 2)^2.

Above 20, n / (n + 2) is 1 in float32; below -120, exp is 0. So the two bounds change no value; they only avoid products
of infinity and zero.

Every operation is written out (fused multiply-add where the processor has it, no contraction, no
reassociation), so that an element's result does not depend on its place in a vector, on the chunk or on the
thread. exp is Cephes' expf: Cody and Waite's reduction by ln 2 and a polynomial of degree 7. Its power of two
is applied in two halves, so that small results go to zero through the subnormals.
"""

SOURCE = r"""
#include <stdint.h>

#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__aarch64__)
#define MULTIPLY_ADD(a, b, c) __builtin_fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

static inline float power_of_two(int32_t exponent) {
    int32_t bits = (exponent + 127) << 23;
    float power;
    __builtin_memcpy(&power, &bits, sizeof power);
    return power;
}

static inline float exponential(float x) {  // for x in -120..20; NaN stays NaN
    const float rounding = 12582912.0f;  // 1.5 * 2^23: in a sum, the low bits are the nearest whole number
    float shifted = MULTIPLY_ADD(x, 1.44269504f, rounding);
    int32_t whole;
    __builtin_memcpy(&whole, &shifted, sizeof whole);
    whole -= 0x4b400000;  // the bits of 1.5 * 2^23
    float twos = shifted - rounding;
    float rest = MULTIPLY_ADD(twos, -0.693359375f, x);
    rest = MULTIPLY_ADD(twos, 2.12194440e-4f, rest);
    float series = 1.9875691500e-4f;
    series = MULTIPLY_ADD(series, rest, 1.3981999507e-3f);
    series = MULTIPLY_ADD(series, rest, 8.3334519073e-3f);
    series = MULTIPLY_ADD(series, rest, 4.1665795894e-2f);
    series = MULTIPLY_ADD(series, rest, 1.6666665459e-1f);
    series = MULTIPLY_ADD(series, rest, 5.0000001201e-1f);
    series = MULTIPLY_ADD(series, rest * rest, rest) + 1.0f;
    int32_t half = whole >> 1;
    return series * power_of_two(half) * power_of_two(whole - half);
}

static void value(const float *__restrict x, const float *, float *__restrict out,
                  int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        float bounded = x[i] < -120.0f ? -120.0f : x[i];
        float e = exponential(bounded > 20.0f ? 20.0f : bounded);
        float n = MULTIPLY_ADD(e, e, e + e);
        out[i] = bounded * (n / (n + 2.0f));
    }
}

static void gradient(const float *__restrict x, const float *__restrict grad_output, float *__restrict out,
                     int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
        float bounded = x[i] < -120.0f ? -120.0f : x[i];
        bounded = bounded > 20.0f ? 20.0f : bounded;
        float e = exponential(bounded);
        float n = MULTIPLY_ADD(e, e, e + e);
        float denominator = n + 2.0f;
        float numerator = MULTIPLY_ADD(n, denominator, 4.0f * bounded * MULTIPLY_ADD(e, e, e));
        float slope = numerator / (denominator * denominator);
        out[i] = grad_output[i] * slope;
    }
}

struct Job {
    void (*body)(const float *, const float *, float *, int64_t);
    const float *x, *grad_output;
    float *out;
    int64_t count, next;
};

static const int64_t CHUNK = 32768;  // elements: fits the second-level cache

static void work(void *data) {
    Job *job = static_cast<Job *>(data);
    for (;;) {
        int64_t start = __atomic_fetch_add(&job->next, CHUNK, __ATOMIC_RELAXED);
        if (start >= job->count) return;
        int64_t left = job->count - start;
        job->body(job->x + start, job->grad_output + start, job->out + start, left < CHUNK ? left : CHUNK);
    }
}

// grad_output: the gradient of the loss by mish(x), or null for the value itself
// parallel: GOMP_parallel of torch's OpenMP, or null
extern "C" void emoexp_mish(const float *x, const float *grad_output, float *out, int64_t count,
                            unsigned threads,
                            void (*parallel)(void (*)(void *), void *, unsigned, unsigned)) {
    Job job = {grad_output ? gradient : value, x, grad_output ? grad_output : x, out, count, 0};
    if (parallel && threads > 1 && count > CHUNK)
        parallel(work, &job, threads, 0);
    else
        work(&job);
}
"""
