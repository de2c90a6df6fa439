/* Recursive covariances of speech and noise, and the minimum variance filter they give, for all frequencies at once.

   R is (2, 2, pairs, bins): speech and noise, real and imaginary parts, the pairs (i, j >= i) of channels row by row.
   Frequencies lie side by side, so that every loop over them is one over vectors. */
#include <math.h>
#include <stdint.h>

enum { BLOCK = 16, MOST = 16 };
#define EACH for (int f = 0; f < n; f++)

typedef double Row[BLOCK];

static int64_t pair(int64_t m, int64_t i, int64_t j) { return i * m - i * (i - 1) / 2 + j - i; }

/* R = keep R + share^2 y y^H / |y|, with the mask as the share of speech. y (m, bins) complex, mask (bins). */
void follow(int64_t m, int64_t bins, const double *y, const double *mask, double keep, double least, double *R) {
    const int64_t pairs = m * (m + 1) / 2;
    for (int64_t start = 0; start < bins; start += BLOCK) {
        const int n = bins - start < BLOCK ? (int)(bins - start) : BLOCK;
        Row re[MOST], im[MOST], speech, noise, power = {0};
        for (int64_t i = 0; i < m; i++) {
            const double *x = y + 2 * (i * bins + start);
            EACH re[i][f] = x[2 * f], im[i][f] = x[2 * f + 1];
            EACH power[f] += re[i][f] * re[i][f] + im[i][f] * im[i][f];
        }
        EACH {
            const double size = sqrt(power[f] / (double)m), s = mask[start + f];
            speech[f] = s * s / (size > least ? size : least);
            noise[f] = (1 - s) * (1 - s) / (size > least ? size : least);
        }
        for (int64_t i = 0, p = 0; i < m; i++)
            for (int64_t j = i; j < m; j++, p++) {
                double *to = R + p * bins + start;
                Row a, b;
                EACH a[f] = re[i][f] * re[j][f] + im[i][f] * im[j][f];
                EACH b[f] = im[i][f] * re[j][f] - re[i][f] * im[j][f];
                EACH to[f] = keep * to[f] + speech[f] * a[f];
                to += pairs * bins;
                EACH to[f] = keep * to[f] + speech[f] * b[f];
                to += pairs * bins;
                EACH to[f] = keep * to[f] + noise[f] * a[f];
                to += pairs * bins;
                EACH to[f] = keep * to[f] + noise[f] * b[f];
            }
    }
}

/* The inverse K of the Cholesky factor of R + level I: K (R + level I) K^H = I, lower triangular. */
static void whiten(int64_t m, int n, int64_t bins, const double *rr, const double *ri, const double *level,
                   Row (*kr)[MOST], Row (*ki)[MOST]) {
    Row lr[MOST][MOST], li[MOST][MOST], inverse[MOST];
    for (int64_t j = 0; j < m; j++)
        for (int64_t i = j; i < m; i++) {
            const int64_t at = pair(m, j, i) * bins; /* R_ij is the conjugate of what is kept */
            Row a, b;
            EACH a[f] = rr[at + f] + (i == j ? level[f] : 0), b[f] = -ri[at + f];
            for (int64_t k = 0; k < j; k++) EACH {
                a[f] -= lr[i][k][f] * lr[j][k][f] + li[i][k][f] * li[j][k][f];
                b[f] -= li[i][k][f] * lr[j][k][f] - lr[i][k][f] * li[j][k][f];
            }
            if (i == j) EACH inverse[j][f] = 1 / sqrt(a[f] > level[f] * 1e-6 ? a[f] : level[f] * 1e-6);
            else EACH lr[i][j][f] = a[f] * inverse[j][f], li[i][j][f] = b[f] * inverse[j][f];
        }
    for (int64_t j = 0; j < m; j++) {
        EACH kr[j][j][f] = inverse[j][f], ki[j][j][f] = 0;
        for (int64_t i = j + 1; i < m; i++) {
            Row a = {0}, b = {0};
            for (int64_t k = j; k < i; k++) EACH {
                a[f] += lr[i][k][f] * kr[k][j][f] - li[i][k][f] * ki[k][j][f];
                b[f] += lr[i][k][f] * ki[k][j][f] + li[i][k][f] * kr[k][j][f];
            }
            EACH kr[i][j][f] = -a[f] * inverse[i][f], ki[i][j][f] = -b[f] * inverse[i][f];
        }
    }
}

/* Filters w (m, bins) complex: column `ref` of N^-1 S over its trace, N the noise with `load` of its power and `floor`
   of the mean power over frequencies on its diagonal. */
void mvdr(int64_t m, int64_t bins, const double *R, int64_t ref, double load, double floor, double tiny, double *w) {
    const int64_t pairs = m * (m + 1) / 2;
    const double *sr = R, *si = sr + pairs * bins, *nr = si + pairs * bins, *ni = nr + pairs * bins;
    double mean = 0;
    for (int64_t i = 0; i < m; i++)
        for (int64_t f = 0; f < bins; f++) mean += nr[pair(m, i, i) * bins + f];
    mean /= (double)(m * bins);
    for (int64_t start = 0; start < bins; start += BLOCK) {
        const int n = bins - start < BLOCK ? (int)(bins - start) : BLOCK;
        Row kr[MOST][MOST], ki[MOST][MOST], ur[MOST], ui[MOST], level = {0}, trace = {0};
        for (int64_t i = 0; i < m; i++) EACH level[f] += nr[pair(m, i, i) * bins + start + f];
        EACH level[f] = load * level[f] / (double)m + floor * mean + tiny;
        whiten(m, n, bins, nr + start, ni + start, level, kr, ki);
        for (int64_t i = 0; i < m; i++) /* row i of K S, of which the trace and column `ref` are needed */
            for (int64_t j = 0; j < m; j++) {
                if (j > i && j != ref) continue;
                Row a = {0}, b = {0};
                for (int64_t k = 0; k <= i; k++) {
                    const int64_t at = (k <= j ? pair(m, k, j) : pair(m, j, k)) * bins + start;
                    const double sign = k <= j ? 1 : -1;
                    EACH {
                        a[f] += kr[i][k][f] * sr[at + f] - sign * ki[i][k][f] * si[at + f];
                        b[f] += kr[i][k][f] * sign * si[at + f] + ki[i][k][f] * sr[at + f];
                    }
                }
                if (j <= i) EACH trace[f] += a[f] * kr[i][j][f] + b[f] * ki[i][j][f];
                if (j == ref) EACH ur[i][f] = a[f], ui[i][f] = b[f];
            }
        EACH trace[f] = 1 / (trace[f] > tiny ? trace[f] : tiny);
        for (int64_t j = 0; j < m; j++) {
            Row a = {0}, b = {0};
            for (int64_t i = j; i < m; i++) EACH {
                a[f] += kr[i][j][f] * ur[i][f] + ki[i][j][f] * ui[i][f];
                b[f] += kr[i][j][f] * ui[i][f] - ki[i][j][f] * ur[i][f];
            }
            double *to = w + 2 * (j * bins + start);
            EACH to[2 * f] = a[f] * trace[f], to[2 * f + 1] = b[f] * trace[f];
        }
    }
}
