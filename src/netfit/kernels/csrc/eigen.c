/* Recursive covariances of several channels and their dominant eigenvectors, frame after frame.

   Real and imaginary parts stand apart and frequencies lie side by side, so that every loop over them is one over
   vectors. Blocks of frequencies are followed through all frames: the covariances of a block stay in the cache. */
#include <math.h>
#include <stdint.h>

enum { BLOCK = 64, MOST = 16 };
#define EACH for (int f = 0; f < n; f++)

typedef float Row[BLOCK];

/* u = R v; R is Hermitian, its upper triangle is stored. */
static void times(int64_t m, int64_t n, Row (*rr)[MOST], Row (*ri)[MOST], Row *vr, Row *vi, Row *ur, Row *ui) {
    for (int64_t i = 0; i < m; i++) {
        EACH ur[i][f] = ui[i][f] = 0;
        for (int64_t j = 0; j < m; j++) {
            const float *a = i <= j ? rr[i][j] : rr[j][i], *b = i <= j ? ri[i][j] : ri[j][i];
            const float sign = i <= j ? 1 : -1;
            EACH {
                ur[i][f] += a[f] * vr[j][f] - sign * b[f] * vi[j][f];
                ui[i][f] += a[f] * vi[j][f] + sign * b[f] * vr[j][f];
            }
        }
    }
}

static void block(int64_t frames, int64_t m, int64_t bins, int64_t n, const float *y, float keep, float least,
                  float *state_r, float *state_i, float *state_vr, float *state_vi, float *turned, float *held) {
    Row rr[MOST][MOST], ri[MOST][MOST], vr[MOST], vi[MOST], ur[MOST], ui[MOST], a, b, c;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = i; j < m; j++) EACH {
            rr[i][j][f] = state_r[(i * m + j) * bins + f];
            ri[i][j][f] = state_i[(i * m + j) * bins + f];
        }
        EACH vr[i][f] = state_vr[i * bins + f], vi[i][f] = state_vi[i * bins + f];
    }
    for (int64_t t = 0; t < frames; t++) {
        const float *x = y + t * 2 * m * bins; /* (frames, 2, m, bins): real part, imaginary part */
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = i; j < m; j++) {
                const float *ir = x + i * bins, *ii = x + (m + i) * bins, *jr = x + j * bins, *ji = x + (m + j) * bins;
                EACH {
                    rr[i][j][f] = keep * rr[i][j][f] + (1 - keep) * (ir[f] * jr[f] + ii[f] * ji[f]);
                    ri[i][j][f] = keep * ri[i][j][f] + (1 - keep) * (ii[f] * jr[f] - ir[f] * ji[f]);
                }
            }
        Row wr[MOST], wi[MOST]; /* the eigenvector of the frame before */
        for (int64_t i = 0; i < m; i++) EACH wr[i][f] = vr[i][f], wi[i][f] = vi[i][f];
        for (int step = 0; step < 2; step++) {
            times(m, n, rr, ri, vr, vi, ur, ui);
            EACH a[f] = 0;
            for (int64_t i = 0; i < m; i++) EACH a[f] += ur[i][f] * ur[i][f] + ui[i][f] * ui[i][f];
            EACH b[f] = a[f] > least * least ? 1 / sqrtf(a[f]) : 0;
            for (int64_t i = 0; i < m; i++) EACH {
                vr[i][f] = b[f] > 0 ? ur[i][f] * b[f] : vr[i][f];
                vi[i][f] = b[f] > 0 ? ui[i][f] * b[f] : vi[i][f];
            }
        }
        times(m, n, rr, ri, vr, vi, ur, ui);
        EACH a[f] = b[f] = c[f] = 0;
        for (int64_t i = 0; i < m; i++) EACH {
            a[f] += vr[i][f] * wr[i][f] + vi[i][f] * wi[i][f];
            b[f] += vr[i][f] * wi[i][f] - vi[i][f] * wr[i][f];
            c[f] += vr[i][f] * ur[i][f] + vi[i][f] * ui[i][f];
        }
        EACH turned[t * bins + f] = sqrtf(a[f] * a[f] + b[f] * b[f]);
        EACH a[f] = least;
        for (int64_t i = 0; i < m; i++) EACH a[f] += rr[i][i][f];
        EACH held[t * bins + f] = c[f] / a[f];
    }
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = i; j < m; j++) EACH {
            state_r[(i * m + j) * bins + f] = state_r[(j * m + i) * bins + f] = rr[i][j][f];
            state_i[(i * m + j) * bins + f] = ri[i][j][f];
            if (i != j) state_i[(j * m + i) * bins + f] = -ri[i][j][f];
        }
        EACH state_vr[i * bins + f] = vr[i][f], state_vi[i * bins + f] = vi[i][f];
    }
}

/* y (frames, 2, m, bins); the state is changed in place: R (2, m, m, bins), v (2, m, bins); out (2, frames, bins). */
int track(int64_t frames, int64_t m, int64_t bins, const float *y, float keep, float least, float *R, float *v, float *out) {
    if (m > MOST) return 1;
    for (int64_t f = 0; f < bins; f += BLOCK) {
        const int64_t n = bins - f < BLOCK ? bins - f : BLOCK;
        block(frames, m, bins, n, y + f, keep, least, R + f, R + m * m * bins + f, v + f, v + m * bins + f, out + f,
              out + frames * bins + f);
    }
    return 0;
}
