/* DBSCAN of the values of one group, in sorted order.

   In one dimension a cluster is a run of core points with gaps of at most eps, and its members lie side by side: the
   cores, what is between them, and the border points on either side. So nothing is kept for each point, and most of the
   work is comparing neighbours, eight at a time. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define LANES 8
typedef double vec __attribute__((vector_size(8 * LANES), aligned(8), may_alias));
typedef int64_t mask __attribute__((vector_size(8 * LANES), aligned(8), may_alias));

/* A cluster: its first and last core, and its members from begin up to end, as places in sorted order. */
typedef struct {
    int64_t low, high, begin, end;
} Run;

/* v and at: values in order, and which point of the group each one is. There is room on both sides of v. */
typedef struct {
    double *v, *value, *z, *spare_v, *space;
    int32_t *at, *spare_at;
    int64_t *core;
    uint8_t *out;
    Run *run;
} Scratch;

#define WIDEST 16 /* min_samples up to which cores are found by comparing neighbours */

static int scratch_new(Scratch *s, int64_t n) {
    const size_t m = (size_t)n + 2 * (WIDEST + LANES);
    memset(s, 0, sizeof *s);
    s->space = malloc(m * 8), s->value = malloc(m * 8), s->z = malloc(m * 8), s->spare_v = malloc(m * 8);
    s->at = malloc(m * 4), s->spare_at = malloc(m * 4), s->core = malloc(m * 8), s->out = malloc(m);
    s->run = malloc(m * sizeof(Run));
    s->v = s->space + WIDEST + LANES;
    return s->space && s->value && s->z && s->spare_v && s->at && s->spare_at && s->core && s->out && s->run;
}

static void scratch_free(Scratch *s) {
    free(s->space), free(s->value), free(s->z), free(s->spare_v), free(s->at), free(s->spare_at), free(s->core);
    free(s->out), free(s->run);
}

static inline int before(double a, int32_t i, double b, int32_t j) { return a < b || (a == b && i < j); }

static void insertion_sort(double *v, int32_t *at, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        const double x = v[i];
        const int32_t index = at[i];
        int64_t j = i;
        for (; j > 0 && before(x, index, v[j - 1], at[j - 1]); j--) v[j] = v[j - 1], at[j] = at[j - 1];
        v[j] = x, at[j] = index;
    }
}

/* Two sorted stretches behind each other become one; the lower one waits in spare memory. */
static void merge(double *v, int32_t *at, int64_t mid, int64_t n, double *low_v, int32_t *low_at) {
    if (!before(v[mid], at[mid], v[mid - 1], at[mid - 1])) return;
    memcpy(low_v, v, (size_t)mid * 8), memcpy(low_at, at, (size_t)mid * 4);
    int64_t a = 0, b = mid, o = 0;
    while (a < mid && b < n) {
        const int right = before(v[b], at[b], low_v[a], low_at[a]);
        v[o] = right ? v[b] : low_v[a];
        at[o++] = right ? at[b] : low_at[a];
        b += right, a += !right;
    }
    memcpy(v + o, low_v + a, (size_t)(mid - a) * 8), memcpy(at + o, low_at + a, (size_t)(mid - a) * 4);
}

/* By value, then by index: a total order, so that the order before does not show in the one after. */
static void sort(Scratch *s, int64_t n) {
    const int64_t first = 32;
    for (int64_t i = 0; i < n; i += first) insertion_sort(s->v + i, s->at + i, n - i < first ? n - i : first);
    for (int64_t width = first; width < n; width *= 2)
        for (int64_t i = 0; i + width < n; i += 2 * width)
            merge(s->v + i, s->at + i, width, n - i < 2 * width ? n - i : 2 * width, s->spare_v, s->spare_at);
}

/* core[i] is -1 where at least `least` points, itself included, are within eps. */
static void find_cores(const Scratch *s, int64_t n, double eps, int64_t least) {
    double *v = s->v;
    if (least > WIDEST) {
        int64_t left = 0, right = 0;
        for (int64_t i = 0; i < n; i++) {
            while (v[i] - v[left] > eps) left++;
            while (right + 1 < n && v[right + 1] - v[i] <= eps) right++;
            s->core[i] = -(right - left + 1 >= least);
        }
        return;
    }
    for (int64_t i = 1; i <= WIDEST; i++) v[-i] = -INFINITY;
    for (int64_t i = 0; i < WIDEST + LANES; i++) v[n + i] = INFINITY;
    for (int64_t i = 0; i < n; i += LANES) {
        const vec here = *(const vec *)(v + i);
        mask found = {0};
        for (int64_t a = 0; a < least; a++)
            found |= (here - *(const vec *)(v + i - a) <= eps) & (*(const vec *)(v + i + least - 1 - a) - here <= eps);
        *(mask *)(s->core + i) = found;
    }
}

static int32_t first_core(const Scratch *s, const Run *run) {
    int32_t first = INT32_MAX;
    for (int64_t i = run->low; i <= run->high; i++)
        if (s->core[i] && s->at[i] < first) first = s->at[i];
    return first;
}

/* Finds the clusters, ascending; returns how many. A border point that two clusters reach belongs to the one with the
   lower first core, as in scikit-learn. */
static int64_t cluster(const Scratch *s, int64_t n, double eps, int64_t least) {
    const double *v = s->v;
    Run *run = s->run;
    int64_t count = 0, last = -1;
    find_cores(s, n, eps, least);
    for (int64_t i = 0; i < n; i++) {
        if (!s->core[i]) continue;
        if (last < 0 || v[i] - v[last] > eps) {
            if (count) run[count - 1].high = last;
            run[count++].low = i;
        }
        last = i;
    }
    if (!count) return 0;
    run[count - 1].high = last;
    int64_t begin = run[0].low;
    while (begin > 0 && v[run[0].low] - v[begin - 1] <= eps) begin--;
    for (int64_t k = 0; k < count; k++) {
        const int64_t next = k + 1 < count ? run[k + 1].low : n;
        int64_t end = run[k].high + 1;
        while (end < next && v[end] - v[run[k].high] <= eps) end++;
        run[k].begin = begin, run[k].end = end, begin = next;
        if (k + 1 == count) break;
        while (begin > run[k].high + 1 && v[next] - v[begin - 1] <= eps) begin--;
        if (begin < end && first_core(s, run + k) < first_core(s, run + k + 1)) begin = end;
        if (begin < end) run[k].end = begin;
    }
    return count;
}

/* The cluster with most members, the one with the lowest first core among equals; null unless it holds half of all. */
static const Run *largest(const Scratch *s, int64_t n, int64_t clusters) {
    const Run *best = 0;
    for (const Run *run = s->run; run < s->run + clusters; run++) {
        const int64_t more = best ? (run->end - run->begin) - (best->end - best->begin) : 1;
        if (more > 0 || (!more && first_core(s, run) < first_core(s, best))) best = run;
    }
    return best && 2 * (best->end - best->begin) >= n ? best : 0;
}

/* DBSCAN labels of one row, in the order of x; what is not finite is noise. Returns 1 for want of memory. */
int peer_labels(const double *x, int64_t n, double eps, int64_t min_samples, int64_t *label) {
    Scratch s;
    const int ready = scratch_new(&s, n);
    int64_t m = 0;
    for (int64_t i = 0; ready && i < n; i++) {
        label[i] = -1;
        if (isfinite(x[i])) s.v[m] = x[i], s.at[m++] = (int32_t)i;
    }
    if (ready) {
        sort(&s, m);
        const int64_t clusters = cluster(&s, m, eps, min_samples);
        for (int64_t k = 0; k < clusters; k++)
            for (int64_t i = s.run[k].begin; i < s.run[k].end; i++) label[s.at[i]] = k;
    }
    scratch_free(&s);
    return !ready;
}
