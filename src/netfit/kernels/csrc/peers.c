/* One-dimensional DBSCAN of the channels of each group, row after row, fused with median and deviation of the group.

   In one dimension a cluster is a run of core points with gaps of at most eps in sorted order, so a row costs one sort
   per group; the order of the row before is kept, and values hardly change places. Sorting is by (value, index), a
   total order: neither the kept order nor the place of a column shows in a result. netfit.kernels.peers holds the same
   steps in Python; the two agree bit for bit. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    double v;
    int64_t i;
} Key;

static inline int before(Key a, Key b) { return a.v < b.v || (a.v == b.v && a.i < b.i); }

static void merge_sort(Key *k, int64_t n, Key *tmp) {
    const int64_t run = 16;
    for (int64_t at = 0; at < n; at += run) {
        const int64_t end = at + run < n ? at + run : n;
        for (int64_t i = at + 1; i < end; i++) {
            const Key key = k[i];
            int64_t j = i;
            for (; j > at && before(key, k[j - 1]); j--) k[j] = k[j - 1];
            k[j] = key;
        }
    }
    for (int64_t width = run; width < n; width *= 2) {
        for (int64_t at = 0; at < n; at += 2 * width) {
            const int64_t mid = at + width < n ? at + width : n, end = at + 2 * width < n ? at + 2 * width : n;
            int64_t a = at, b = mid, o = at;
            while (a < mid && b < end) {
                const int right = before(k[b], k[a]);
                tmp[o++] = right ? k[b] : k[a];
                b += right;
                a += !right;
            }
            while (a < mid) tmp[o++] = k[a++];
            while (b < end) tmp[o++] = k[b++];
        }
        memcpy(k, tmp, (size_t)n * sizeof(Key));
    }
}

/* Insertion sort while the keys are almost sorted, merge sort once they turn out not to be. */
static void sort_keys(Key *k, int64_t n, Key *tmp) {
    int64_t budget = 8 * n;
    for (int64_t i = 1; i < n; i++) {
        const Key key = k[i];
        int64_t j = i;
        for (; j > 0 && before(key, k[j - 1]); j--) k[j] = k[j - 1];
        k[j] = key;
        if ((budget -= i - j) < 0) {
            merge_sort(k, n, tmp);
            return;
        }
    }
}

/* Labels in sorted order, -1 for noise; first[c] is the lowest index of a core of cluster c. A border point that two
   clusters reach belongs to the one with the lower first core, as in scikit-learn. */
static int64_t cluster(const Key *k, int64_t n, double eps, int64_t min_samples, int64_t *label, uint8_t *core,
                       int64_t *first) {
    int64_t left = 0, right = 0, clusters = 0, last = -1;
    for (int64_t i = 0; i < n; i++) {
        while (k[i].v - k[left].v > eps) left++;
        while (right + 1 < n && k[right + 1].v - k[i].v <= eps) right++;
        core[i] = right - left + 1 >= min_samples;
        label[i] = -1;
        if (!core[i]) continue;
        if (last < 0 || k[i].v - k[last].v > eps)
            first[clusters++] = k[i].i;
        else if (k[i].i < first[clusters - 1])
            first[clusters - 1] = k[i].i;
        label[i] = clusters - 1;
        last = i;
    }
    last = -1;
    for (int64_t i = 0; i < n; i++) {
        if (core[i]) last = i;
        else if (last >= 0 && k[i].v - k[last].v <= eps) label[i] = label[last];
    }
    last = -1;
    for (int64_t i = n - 1; i >= 0; i--) {
        if (core[i]) last = i;
        else if (last >= 0 && k[last].v - k[i].v <= eps && (label[i] < 0 || first[label[last]] < first[label[i]]))
            label[i] = label[last];
    }
    return clusters;
}

typedef struct {
    Key *keys, *tmp;
    int64_t *label, *first, *count;
    uint8_t *core;
} Scratch;

static int scratch_new(Scratch *s, int64_t n) {
    const size_t m = (size_t)(n ? n : 1);
    s->keys = malloc(m * sizeof(Key)), s->tmp = malloc(m * sizeof(Key));
    s->label = malloc(m * 8), s->first = malloc(m * 8), s->count = malloc(m * 8);
    s->core = malloc(m);
    return s->keys && s->tmp && s->label && s->first && s->count && s->core;
}

static void scratch_free(Scratch *s) {
    free(s->keys), free(s->tmp), free(s->label), free(s->first), free(s->count), free(s->core);
}

/* DBSCAN labels of one row, in the order of x; what is not finite is noise. Returns 1 for want of memory. */
int peer_labels(const double *x, int64_t n, double eps, int64_t min_samples, int64_t *label) {
    Scratch s;
    if (!scratch_new(&s, n)) {
        scratch_free(&s);
        return 1;
    }
    int64_t m = 0;
    for (int64_t i = 0; i < n; i++) {
        label[i] = -1;
        if (isfinite(x[i])) s.keys[m++] = (Key){x[i], i};
    }
    sort_keys(s.keys, m, s.tmp);
    cluster(s.keys, m, eps, min_samples, s.label, s.core, s.first);
    for (int64_t i = 0; i < m; i++) label[s.keys[i].i] = s.label[i];
    scratch_free(&s);
    return 0;
}

#define TINY 1e-12    /* the unit of a group of zeros */
#define ABOVE_1 1.000001 /* also in single precision */

enum { PEER = 0, ZERO = 1, ABSENT = 2, NEW = 3 };

typedef struct {
    int64_t row, slot, run, kind;
    double x, expected, z, score;
} Event;

typedef struct {
    /* the rows */
    int64_t rows, columns, groups;
    const double *x;        /* (rows, columns) as the caller has them */
    const int64_t *source;  /* (slots): column of each slot, -1 when it is absent */
    const int64_t *offset;  /* (groups + 1): slots of each group */
    /* settings */
    const double *eps; /* (groups): 0 for automatic */
    double auto_eps, resolution;
    int64_t min_samples, min_duration, min_presence, memory, lifetime, watch_absence;
    /* state of the channels */
    int32_t *order, *peer_order, *seen, *run, *gap;
    double *bias, *spread;
    uint8_t *kind;
    /* state of the groups */
    double *scale;
    int64_t *warm;
    /* results: (rows, groups), and both of (rows, slots) or null */
    double *median, *std, *group_score;
    int64_t *count;
    float *score, *z;
    /* events: memory of this file, to be given back by peer_free */
    int64_t events, room, lost;
    Event *event;
} Call;

static inline double fmin2(double a, double b) { return a < b ? a : b; }
static inline double fmax2(double a, double b) { return a > b ? a : b; }

static void emit(Call *c, Event event) {
    if (c->events == c->room) {
        const int64_t room = c->room ? 2 * c->room : 256;
        Event *more = realloc(c->event, (size_t)room * sizeof(Event));
        c->lost |= !more;
        if (!more) return;
        c->event = more, c->room = room;
    }
    c->event[c->events++] = event;
}

void peer_free(Event *event) { free(event); }

/* The value at the three-quarter point of the distances from the median, found from both ends of the sorted row. */
static double quartile_distance(const Key *k, int64_t n, double median) {
    int64_t lo = 0, hi = n - 1, drop = n - 1 - 3 * (n - 1) / 4;
    for (; drop > 0; drop--) {
        if (median - k[lo].v >= k[hi].v - median) lo++;
        else hi--;
    }
    return fmax2(median - k[lo].v, k[hi].v - median);
}

/* Channels that are absent in this row; one whose peers are there is worth an event, one gone too long is forgotten. */
static void absences(Call *c, int64_t row, int64_t base, int64_t n, int64_t present) {
    int64_t known = 0;
    for (int64_t i = 0; c->watch_absence && i < n; i++) known += c->seen[base + i] > 0;
    for (int64_t i = present; i < n; i++) {
        const int64_t slot = base + c->order[base + i], seen = c->seen[slot];
        if (!seen) continue;
        const int64_t gap = ++c->gap[slot];
        if (c->watch_absence && gap == c->min_duration && seen >= c->min_presence && 2 * present >= known)
            emit(c, (Event){row, slot, gap, ABSENT, NAN, NAN, NAN, 1});
        if (gap > c->lifetime) c->seen[slot] = c->gap[slot] = c->run[slot] = 0, c->bias[slot] = c->spread[slot] = 0;
    }
}

/* The usual offset of a channel from its peers and its usual distance from that: running means that forget. A value
   that stands out is clipped, and learned eight times slower. */
static void learn(Call *c, int64_t slot, double distance, double unit, int outlying) {
    const double seen = (double)(c->seen[slot] < c->memory ? c->seen[slot] : c->memory);
    const double limit = c->auto_eps * unit, slow = outlying ? 0.125 : 1.0;
    const double d = fmax2(-limit, fmin2(limit, distance - c->bias[slot]));
    c->bias[slot] += slow * d / (seen + 30.0);
    c->spread[slot] += slow * (fabs(d) - c->spread[slot]) / (seen + 30.0);
}

/* Values of the group's present channels, sorted: as they are, or (unit > 0) as distances from the usual in units.
   `order` holds all channels of the group, the present ones first and sorted; what is not finite is absent. */
static int64_t sorted_keys(const Call *c, Scratch *s, int32_t *order, int64_t base, int64_t n, const double *x,
                           double median, double unit) {
    int64_t m = 0, away = n;
    for (int64_t i = 0; i < n; i++) {
        const int64_t local = order[i], slot = base + local, column = c->source[slot];
        const double value = column < 0 ? NAN : x[column];
        if (!isfinite(value)) s->count[--away] = local;
        else if (unit > 0) s->keys[m++] = (Key){(value - median - c->bias[slot]) / fmax2(unit, c->spread[slot]), local};
        else s->keys[m++] = (Key){value, local};
    }
    sort_keys(s->keys, m, s->tmp);
    for (int64_t i = 0; i < m; i++) order[i] = (int32_t)s->keys[i].i;
    for (int64_t i = m; i < n; i++) order[i] = (int32_t)s->count[i];
    return m;
}

/* The cluster with most members, the one with the lowest first core among equals; -1 unless it holds at least half. */
static int64_t normal_cluster(Scratch *s, int64_t m, int64_t clusters) {
    int64_t best = -1;
    memset(s->count, 0, (size_t)clusters * 8);
    for (int64_t i = 0; i < m; i++)
        if (s->label[i] >= 0) s->count[s->label[i]]++;
    for (int64_t k = 0; k < clusters; k++)
        if (best < 0 || s->count[k] > s->count[best] || (s->count[k] == s->count[best] && s->first[k] < s->first[best]))
            best = k;
    return best >= 0 && 2 * s->count[best] >= m ? best : -1;
}

/* Score, persistence, event and learning of one present channel. */
static double channel(Call *c, int64_t row, int64_t g, int64_t slot, double value, double z, double score, int outlying,
                      double unit) {
    const int automatic = unit > 0;
    const double median = c->median[row * c->groups + g];
    const double expected = automatic ? median + c->bias[slot] : median;
    const uint8_t kind = fabs(value) <= 1e-8 && fabs(expected) > 1e-8 ? ZERO : PEER;
    c->seen[slot] += c->seen[slot] < INT32_MAX;
    c->gap[slot] = 0;
    c->run[slot] = outlying ? (c->run[slot] && c->kind[slot] == kind ? c->run[slot] + 1 : 1) : 0;
    c->kind[slot] = kind;
    const int alarm = outlying && c->run[slot] >= c->min_duration && c->seen[slot] >= c->min_presence;
    if (alarm) emit(c, (Event){row, slot, c->run[slot], kind, value, expected, z, score});
    else if (c->watch_absence && c->seen[slot] == c->min_presence && c->warm[g] > c->min_presence)
        emit(c, (Event){row, slot, c->min_presence, NEW, value, expected, z, 1});
    if (automatic) learn(c, slot, value - median, unit, outlying);
    return alarm ? score : fmin2(score, 1.0);
}

static void group_row(Call *c, Scratch *s, int64_t row, int64_t g) {
    const int64_t base = c->offset[g], n = c->offset[g + 1] - base, out = row * c->groups + g;
    const double *x = c->x + row * c->columns;
    float *scores = c->score ? c->score + row * c->offset[c->groups] + base : 0;
    float *zs = c->z ? c->z + row * c->offset[c->groups] + base : 0;
    const int64_t m = sorted_keys(c, s, c->order + base, base, n, x, 0, 0);
    absences(c, row, base, n, m);
    for (int64_t i = 0; scores && i < n; i++) scores[i] = zs[i] = NAN;
    c->count[out] = m, c->median[out] = c->std[out] = NAN, c->group_score[out] = 0;
    if (!m) return;

    const double median = m % 2 ? s->keys[m / 2].v : 0.5 * (s->keys[m / 2 - 1].v + s->keys[m / 2].v);
    double sum = 0, square = 0;
    for (int64_t i = 0; i < m; i++) sum += s->keys[i].v;
    const double mean = sum / (double)m;
    for (int64_t i = 0; i < m; i++) square += (s->keys[i].v - mean) * (s->keys[i].v - mean);
    c->median[out] = median, c->std[out] = sqrt(square / (double)m);

    const int automatic = c->eps[g] <= 0;
    const double eps = automatic ? c->auto_eps : c->eps[g];
    double unit = 0;
    if (automatic) {
        const int64_t warm = c->warm[g] < c->memory ? c->warm[g] : c->memory;
        c->scale[g] += (quartile_distance(s->keys, m, median) - c->scale[g]) / (double)(warm + 1);
        unit = fmax2(c->scale[g], fmax2(fmax2(c->resolution, TINY), 0.01 * fabs(median)));
        sorted_keys(c, s, c->peer_order + base, base, n, x, median, unit);
    }
    c->warm[g]++;
    const int64_t normal = normal_cluster(s, m, cluster(s->keys, m, eps, c->min_samples, s->label, s->core, s->first));
    double low = INFINITY, high = -INFINITY, worst = 0;
    for (int64_t i = 0; i < m; i++)
        if (s->core[i] && s->label[i] == normal) low = fmin2(low, s->keys[i].v), high = fmax2(high, s->keys[i].v);
    const double centre = 0.5 * (low + high), reach = 0.5 * (high - low) + eps;
    for (int64_t i = 0; i < m; i++) {
        const int64_t slot = base + s->keys[i].i;
        const int outlying = normal >= 0 && s->label[i] != normal;
        double score = normal < 0 ? 0 : fabs(s->keys[i].v - centre) / reach;
        score = outlying ? fmax2(score, ABOVE_1) : fmin2(score, 1);
        const double z = automatic ? s->keys[i].v : (s->keys[i].v - median) / eps;
        score = channel(c, row, g, slot, x[c->source[slot]], z, score, outlying, unit);
        if (scores) scores[s->keys[i].i] = (float)score, zs[s->keys[i].i] = (float)z;
        worst = fmax2(worst, score);
    }
    c->group_score[out] = worst;
}

/* Returns 1 for want of memory. */
int peer_rows(Call *c) {
    int64_t widest = 0;
    for (int64_t g = 0; g < c->groups; g++)
        if (c->offset[g + 1] - c->offset[g] > widest) widest = c->offset[g + 1] - c->offset[g];
    Scratch s;
    const int ready = scratch_new(&s, widest);
    for (int64_t row = 0; ready && row < c->rows; row++)
        for (int64_t g = 0; g < c->groups; g++) group_row(c, &s, row, g);
    scratch_free(&s);
    return !ready || c->lost;
}
