/* Channels of each group compared with each other, row after row: DBSCAN of cluster.c on the values of a row, fused with
   median and deviation of the group, and the sum of what a channel keeps off its peers over many rows.

   The order of the row before is kept, and values hardly change places. Neither that order nor the place of a column
   shows in a result. netfit.kernels._peers holds the same steps in Python; the two agree bit for bit. */

#define TINY 1e-12       /* the unit of a group of zeros */
#define ABOVE_1 1.000001 /* also in single precision */
#define LONGEST 64       /* rows that are counted of a shift */

enum { PEER = 0, ZERO = 1, ABSENT = 2, NEW = 3, SHIFT = 4 };

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
    double auto_eps, resolution, shift;
    int64_t min_samples, min_duration, min_presence, memory, lifetime, watch_absence;
    /* state of the channels */
    int32_t *order, *peer_order, *seen, *run, *gap;
    double *bias, *spread, *drift;
    uint8_t *kind, *rise;
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

/* One group in one row. */
typedef struct {
    int64_t row, g, base, n, m; /* its first slot, its channels, those present */
    double median, unit;        /* unit is 0 where eps is given */
    const Run *normal;
} Group;

static inline double fmin2(double a, double b) { return a < b ? a : b; }
static inline double fmax2(double a, double b) { return a > b ? a : b; }
static inline int here(double value) { return value == value; }

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
static double quartile_distance(const double *v, int64_t n, double median) {
    int64_t lo = 0, hi = n - 1, drop = n - 1 - 3 * (n - 1) / 4;
    for (; drop > 0; drop--) {
        if (median - v[lo] >= v[hi] - median) lo++;
        else hi--;
    }
    return fmax2(median - v[lo], v[hi] - median);
}

/* Eight sums side by side of (v - centre) or its square, then their sum. */
static double total(const double *v, int64_t n, double centre, int square) {
    vec sums = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec d = *(const vec *)(v + i) - centre;
        if (square) sums += d * d;
        else sums += d;
    }
    for (int64_t lane = 0; i < n; i++, lane++) {
        const double d = v[i] - centre;
        sums[lane] += square ? d * d : d;
    }
    double sum = sums[0];
    for (int lane = 1; lane < LANES; lane++) sum += sums[lane];
    return sum;
}

/* Values of the group's channels by channel, NaN for those that are absent. */
static void read_values(const Call *c, const Group *p, Scratch *s) {
    const double *x = c->x + p->row * c->columns;
    const int64_t *source = c->source + p->base;
    for (int64_t i = 0; i < p->n; i++) {
        const double value = source[i] < 0 ? NAN : x[source[i]];
        s->value[i] = isfinite(value) ? value : NAN;
    }
}

/* Sorts those present, starting from the order before: `order` holds them first. Returns how many. */
static int64_t sort_present(Scratch *s, const double *value, int32_t *order, int64_t n) {
    int64_t m = 0, away = 0;
    for (int64_t i = 0; i < n; i++) {
        const int32_t local = order[i];
        s->v[m] = value[local], s->at[m] = local;
        s->spare_at[away] = local;
        const int present = here(value[local]);
        m += present, away += !present;
    }
    memcpy(order + m, s->spare_at, (size_t)away * 4);
    sort(s, m);
    memcpy(order, s->at, (size_t)m * 4);
    return m;
}

/* Channels that are absent in this row; one whose peers are there is worth an event, one gone too long is forgotten. */
static void absences(Call *c, const Group *p, const double *value) {
    int64_t known = 0;
    for (int64_t i = 0; c->watch_absence && i < p->n; i++) known += c->seen[p->base + i] > 0;
    for (int64_t i = 0; i < p->n; i++) {
        const int64_t slot = p->base + i, seen = c->seen[slot];
        if (here(value[i]) || !seen) continue;
        const int64_t gap = ++c->gap[slot];
        if (c->watch_absence && gap == c->min_duration && seen >= c->min_presence && 2 * p->m >= known)
            emit(c, (Event){p->row, slot, gap, ABSENT, NAN, NAN, NAN, 1});
        if (gap > c->lifetime) {
            c->seen[slot] = c->gap[slot] = c->run[slot] = c->rise[slot] = 0;
            c->bias[slot] = c->spread[slot] = c->drift[slot] = 0;
        }
    }
}

/* Distances from the usual offset, in usual distances. */
static void measure(const Call *c, const Group *p, Scratch *s) {
    const double *bias = c->bias + p->base, *spread = c->spread + p->base;
    for (int64_t i = 0; i < p->n; i++) s->z[i] = (s->value[i] - p->median - bias[i]) / fmax2(p->unit, spread[i]);
}

/* The usual offset of a channel from its peers and its usual distance from that: running means that forget. A value
   that stands out is clipped, and learned eight times slower. */
static void learn(Call *c, const Group *p, const Scratch *s) {
    double *bias = c->bias + p->base, *spread = c->spread + p->base;
    const int32_t *seen = c->seen + p->base;
    const double limit = c->auto_eps * p->unit, memory = (double)c->memory;
    for (int64_t i = 0; i < p->n; i++) {
        const double weight = fmin2((double)seen[i], memory) + 30.0, slow = s->out[i] ? 0.125 : 1.0;
        const double d = fmax2(-limit, fmin2(limit, s->value[i] - p->median - bias[i]));
        const double offset = bias[i] + slow * d / weight;
        const double distance = spread[i] + slow * (fabs(d) - spread[i]) / weight;
        bias[i] = here(s->value[i]) ? offset : bias[i];
        spread[i] = here(s->value[i]) ? distance : spread[i];
    }
}

/* Page's sum of what is beyond `shift`, to either side, of the last rows; its sign is the side. Returns the largest. */
static double accumulate(Call *c, const Group *p, const Scratch *s) {
    double *drift = c->drift + p->base, most = 0;
    uint8_t *rise = c->rise + p->base;
    const double allowed = c->shift, limit = 5 * c->shift, cap = limit / 3;
    for (int64_t i = 0; i < p->n; i++) {
        const double z = p->normal ? fmax2(-cap, fmin2(cap, s->z[i])) : 0.0, old = drift[i];
        const double up = fmax2(old, 0) + z - allowed, down = fmax2(-old, 0) - z - allowed;
        const double sum = up > 0 ? fmin2(up, 1.5 * limit) : down > 0 ? -fmin2(down, 1.5 * limit) : 0.0;
        const int present = here(s->value[i]);
        const uint8_t rows = sum == 0 ? 0 : sum * old > 0 ? (uint8_t)(rise[i] + (rise[i] < LONGEST)) : 1;
        drift[i] = present ? sum : old;
        rise[i] = present ? rows : rise[i];
        most = present ? fmax2(most, fabs(sum)) : most;
    }
    return most;
}

/* Marks who is outside the normal cluster, and counts for how long. Returns whether anybody is. */
static int mark(Call *c, const Group *p, Scratch *s) {
    int32_t *seen = c->seen + p->base, *run = c->run + p->base, *gap = c->gap + p->base;
    const int any = p->normal && (p->normal->begin > 0 || p->normal->end < p->m);
    memset(s->out, 0, (size_t)p->n);
    if (any) {
        for (int64_t i = 0; i < p->normal->begin; i++) s->out[s->at[i]] = 1;
        for (int64_t i = p->normal->end; i < p->m; i++) s->out[s->at[i]] = 1;
    }
    for (int64_t i = 0; i < p->n; i++) {
        const int present = here(s->value[i]);
        seen[i] += present && seen[i] < INT32_MAX;
        gap[i] = present ? 0 : gap[i];
        run[i] = present && !s->out[i] ? 0 : run[i];
    }
    return any;
}

/* Where the normal cluster is: its centre, and how far one may be from that. */
static void reach_of(const Call *c, const Group *p, const Scratch *s, double *centre, double *reach) {
    const double low = s->v[p->normal->low], high = s->v[p->normal->high];
    *centre = 0.5 * (low + high), *reach = 0.5 * (high - low) + (p->unit > 0 ? c->auto_eps : c->eps[p->g]);
}

/* How far the sum of a shift is beyond its limit, where the shift lasts in this row. */
static double shifted(const Call *c, const Group *p, const Scratch *s, int64_t i) {
    const double sum = p->unit > 0 && p->normal ? c->drift[p->base + i] : 0;
    return (sum > 0 ? s->z[i] : -s->z[i]) > c->shift ? fabs(sum) / (5 * c->shift) : 0;
}

/* Alarms and news of the present channels; returns the highest score of an alarm, `scores` holds that of each. A shift
   is told but adds nothing to a score: the caller knows whether it is usual. */
static double tell(Call *c, const Group *p, const Scratch *s, double centre, double reach, float *scores) {
    double worst = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const int64_t slot = p->base + i;
        const double value = s->value[i], sum = shifted(c, p, s, i);
        const int fresh = c->watch_absence && c->seen[slot] == c->min_presence && c->warm[p->g] > c->min_presence;
        if (!here(value) || !(s->out[i] || sum > 1 || fresh)) continue;
        const double expected = p->unit > 0 ? p->median + c->bias[slot] : p->median;
        const uint8_t kind = fabs(value) <= 1e-8 && fabs(expected) > 1e-8 ? ZERO : PEER;
        const double z = p->unit > 0 ? s->z[i] : (value - p->median) / c->eps[p->g];
        if (s->out[i]) {
            c->run[slot] = c->run[slot] && c->kind[slot] == kind ? c->run[slot] + 1 : 1;
            c->kind[slot] = kind;
        }
        const int known = c->seen[slot] >= c->min_presence;
        if (known && s->out[i] && c->run[slot] >= c->min_duration) {
            const double score = fmax2(fabs((p->unit > 0 ? z : value) - centre) / reach, ABOVE_1);
            worst = fmax2(worst, score);
            if (scores) scores[i] = (float)score;
            emit(c, (Event){p->row, slot, c->run[slot], kind, value, expected, z, score});
        } else if (known && sum > 1)
            emit(c, (Event){p->row, slot, c->rise[slot], SHIFT, value, expected, z, sum});
        else if (fresh)
            emit(c, (Event){p->row, slot, c->min_presence, NEW, value, expected, z, 1});
    }
    return worst;
}

/* Scores of channels that raise no alarm, and all distances. */
static void fill_dense(const Call *c, const Group *p, const Scratch *s, double centre, double reach, float *scores,
                       float *zs) {
    for (int64_t i = 0; i < p->n; i++) {
        const double z = p->unit > 0 ? s->z[i] : (s->value[i] - p->median) / c->eps[p->g];
        const double score = s->out[i] ? 1 : fmin2(1, fabs((p->unit > 0 ? z : s->value[i]) - centre) / reach);
        scores[i] = here(s->value[i]) ? (p->normal ? (float)score : 0) : NAN;
        zs[i] = (float)z;
    }
}

static double quiet_score(const Group *p, const Scratch *s, int any, double centre, double reach) {
    if (any) return 1;
    return fmin2(1, fmax2(fabs(s->v[0] - centre), fabs(s->v[p->m - 1] - centre)) / reach);
}

static void group_row(Call *c, Scratch *s, int64_t row, int64_t g) {
    const int64_t base = c->offset[g], out = row * c->groups + g;
    Group p = {.row = row, .g = g, .base = base, .n = c->offset[g + 1] - base};
    float *scores = c->score ? c->score + row * c->offset[c->groups] + base : 0;
    float *zs = c->z ? c->z + row * c->offset[c->groups] + base : 0;
    read_values(c, &p, s);
    p.m = sort_present(s, s->value, c->order + base, p.n);
    if (p.m < p.n) absences(c, &p, s->value);
    c->count[out] = p.m, c->median[out] = c->std[out] = NAN, c->group_score[out] = 0;
    for (int64_t i = 0; scores && i < p.n; i++) scores[i] = zs[i] = NAN;
    if (!p.m) return;

    const double *v = s->v;
    p.median = p.m % 2 ? v[p.m / 2] : 0.5 * (v[p.m / 2 - 1] + v[p.m / 2]);
    const double mean = total(v, p.m, 0, 0) / (double)p.m;
    c->median[out] = p.median, c->std[out] = sqrt(total(v, p.m, mean, 1) / (double)p.m);
    const int automatic = c->eps[g] <= 0;
    if (automatic) {
        const int64_t warm = c->warm[g] < c->memory ? c->warm[g] : c->memory;
        c->scale[g] += (quartile_distance(v, p.m, p.median) - c->scale[g]) / (double)(warm + 1);
        p.unit = fmax2(c->scale[g], fmax2(fmax2(c->resolution, TINY), 0.01 * fabs(p.median)));
        measure(c, &p, s);
        sort_present(s, s->z, c->peer_order + base, p.n);
    }
    c->warm[g]++;
    p.normal = largest(s, p.m, cluster(s, p.m, automatic ? c->auto_eps : c->eps[g], c->min_samples));
    double centre = 0, reach = 1;
    if (p.normal) reach_of(c, &p, s, &centre, &reach);
    const int any = mark(c, &p, s);
    const double most = automatic ? accumulate(c, &p, s) : 0;
    if (scores) fill_dense(c, &p, s, centre, reach, scores, zs);
    if (p.normal) c->group_score[out] = quiet_score(&p, s, any, centre, reach);
    if (any || most > 5 * c->shift || c->watch_absence)
        c->group_score[out] = fmax2(c->group_score[out], tell(c, &p, s, centre, reach, scores));
    if (automatic) learn(c, &p, s);
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
