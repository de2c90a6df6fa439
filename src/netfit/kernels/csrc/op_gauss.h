/* Moments of Gaussians through the rectifier and the maximum, one vector at a time. */
#include <math.h>

static inline vfloat splat(float x) { return x - (vfloat){0}; }
static inline vfloat choose(vint mask, vfloat a, vfloat b) { return (vfloat)(((vint)a & mask) | ((vint)b & ~mask)); }
static inline vfloat larger(vfloat a, vfloat b) { return choose(a > b, a, b); }
static inline vfloat root(vfloat x) {
    for (int i = 0; i < LANES; i++) x[i] = sqrtf(x[i]);
    return x;
}

/* exp of numbers from -87 to 0: two to a whole power times a polynomial of the rest; relative error below 3e-7. */
static inline vfloat exponential(vfloat x) {
    const vfloat scaled = larger(x, splat(-87.0f)) * 1.44269504f;
    const vint whole = __builtin_convertvector(scaled - 0.5f, vint);
    const vfloat f = (scaled - __builtin_convertvector(whole, vfloat)) * 0.693147181f;
    const vfloat p = 1.0f + f * (1.0f + f * (0.5f + f * (0.166666667f + f * (0.0416666667f + f * (8.33333e-3f + f * (1.38889e-3f + f * 1.98413e-4f))))));
    return p * (vfloat)((whole + 127) << 23);
}

/* Distribution function and density of the standard Gaussian; Abramowitz and Stegun 7.1.26, error below 2e-7. */
static inline vfloat distribution(vfloat z, vfloat *density) {
    const vfloat size = larger(z, -z), bell = exponential(-0.5f * z * z);
    const vfloat t = 1.0f / (1.0f + 0.231641888f * size);
    const vfloat tail = bell * t * (0.127414796f + t * (-0.142248368f + t * (0.710706870f + t * (-0.726576013f + t * 0.530702714f))));
    *density = bell * 0.398942280f;
    return choose(z < 0, tail, 1.0f - tail);
}

/* Mean and second moment of max(x, 0). */
static inline void rectified(vfloat *mean, vfloat *second) {
    const vfloat variance = larger(*second - *mean * *mean, splat(1e-12f)), deviation = root(variance);
    vfloat density;
    const vfloat share = distribution(*mean / deviation, &density), peak = deviation * density;
    const vfloat m = *mean * share + peak;
    *second = *second * share + *mean * peak;
    *mean = m;
}

/* Mean and second moment of the larger of two independent Gaussians ("The Greatest of a Finite Set of Random
   Variables", Clark, 1961). */
static inline void greatest(vfloat *mean, vfloat *second, vfloat m, vfloat s) {
    const vfloat variance = larger(*second - *mean * *mean, splat(1e-4f)) + larger(s - m * m, splat(1e-4f));
    const vfloat width = root(variance);
    vfloat density;
    const vfloat share = distribution((*mean - m) / width, &density);
    const vfloat both = *mean + m, first = *mean * share + m * (1.0f - share) + width * density;
    *second = *second * share + s * (1.0f - share) + both * width * density;
    *mean = first;
}
