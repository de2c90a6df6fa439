/* The VTA accelerator: functional execution, times, and races of a program. Compiled once for every core
   (BATCH x BLOCK_IN x BLOCK_OUT). Everything is checked against the sizes of its memory. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int32_t opcode, pop_prev, pop_next, push_prev, push_next;
    int32_t mem, sram, dram, y_size, x_size, x_stride, y_pad0, y_pad1, x_pad0, x_pad1;
    int32_t reset, uop_begin, uop_end, iter_out, iter_in;
    int32_t acc_out, acc_in, inp_out, inp_in, wgt_out, wgt_in;
    int32_t alu_op, use_imm, imm;
} Insn;

enum { LOAD, STORE, GEMM, FINISH, ALU };
enum { UOP, WGT, INP, ACC, OUT };
enum { MIN, MAX, ADD, SHR, MUL };
enum { FINE, BAD_SRAM, BAD_DRAM, BAD_UOP, BAD_CODE, NO_MEMORY, DEADLOCK, TOKEN_LEFT, RACE };

typedef struct {
    int64_t depth[4];   /* words of the memories UOP, WGT, INP, ACC */
    int64_t held[5];    /* words in main memory behind UOP, WGT, INP, ACC, OUT */
} Sizes;

typedef struct {
    uint32_t *uop;
    int32_t *wgt; /* [word][in][out]: transposed when loaded, so that outputs are neighbours */
    int8_t *inp;
    int32_t *acc;
} Sram;

#define INP_WORD (BATCH * BLOCK_IN)
#define WGT_WORD (BLOCK_IN * BLOCK_OUT)
#define ACC_WORD (BATCH * BLOCK_OUT)

static int64_t acc_index(uint32_t u) { return u & 2047; }
static int64_t inp_index(uint32_t u) { return u >> 11 & 2047; }
static int64_t wgt_index(uint32_t u) { return u >> 22; }

static void put(const Sram *s, int mem, int64_t to, const void *from, int64_t at) {
    const int8_t *bytes = from;
    switch (mem) {
    case UOP: s->uop[to] = from ? ((const uint32_t *)from)[at] : 0; break;
    case WGT:
        for (int o = 0; o < BLOCK_OUT; o++)
            for (int i = 0; i < BLOCK_IN; i++)
                s->wgt[to * WGT_WORD + i * BLOCK_OUT + o] = from ? bytes[at * WGT_WORD + o * BLOCK_IN + i] : 0;
        break;
    case INP:
        if (from) memcpy(s->inp + to * INP_WORD, bytes + at * INP_WORD, INP_WORD);
        else memset(s->inp + to * INP_WORD, 0, INP_WORD);
        break;
    default:
        if (from) memcpy(s->acc + to * ACC_WORD, (const int32_t *)from + at * ACC_WORD, ACC_WORD * sizeof(int32_t));
        else memset(s->acc + to * ACC_WORD, 0, ACC_WORD * sizeof(int32_t));
    }
}

static int load(const Insn *p, const Sizes *z, const Sram *s, const void *const *dram) {
    if (p->mem > ACC) return BAD_CODE;
    const int64_t rows = p->y_pad0 + p->y_size + p->y_pad1, cols = p->x_pad0 + p->x_size + p->x_pad1;
    if (p->sram + rows * cols > z->depth[p->mem]) return BAD_SRAM;
    if (p->y_size && p->x_size && p->dram + (p->y_size - 1) * (int64_t)p->x_stride + p->x_size > z->held[p->mem])
        return BAD_DRAM;
    for (int64_t y = 0, to = p->sram; y < rows; y++)
        for (int64_t x = 0; x < cols; x++, to++) {
            const int64_t row = y - p->y_pad0, col = x - p->x_pad0;
            const int inside = row >= 0 && row < p->y_size && col >= 0 && col < p->x_size;
            put(s, p->mem, to, inside ? dram[p->mem] : 0, p->dram + row * p->x_stride + col);
        }
    return FINE;
}

static int store(const Insn *p, const Sizes *z, const Sram *s, int8_t *out) {
    if (p->mem != OUT) return BAD_CODE;
    if (p->sram + (int64_t)p->y_size * p->x_size > z->depth[ACC]) return BAD_SRAM;
    if (p->y_size && p->x_size && p->dram + (p->y_size - 1) * (int64_t)p->x_stride + p->x_size > z->held[OUT])
        return BAD_DRAM;
    const int32_t *from = s->acc + (int64_t)p->sram * ACC_WORD;
    for (int64_t y = 0; y < p->y_size; y++) {
        int8_t *to = out + (p->dram + y * p->x_stride) * ACC_WORD;
        for (int64_t i = 0; i < (int64_t)p->x_size * ACC_WORD; i++) to[i] = (int8_t)(uint32_t)*from++;
    }
    return FINE;
}

/* Only whole words are checked; a word's inside cannot be left. */
static inline void mac(int32_t *restrict acc, const int8_t *restrict x, const int32_t *restrict w) {
    for (int b = 0; b < BATCH; b++) {
        int32_t sum[BLOCK_OUT];
        for (int o = 0; o < BLOCK_OUT; o++) sum[o] = acc[b * BLOCK_OUT + o];
        for (int i = 0; i < BLOCK_IN; i++)
            for (int o = 0; o < BLOCK_OUT; o++) sum[o] += x[b * BLOCK_IN + i] * w[i * BLOCK_OUT + o];
        for (int o = 0; o < BLOCK_OUT; o++) acc[b * BLOCK_OUT + o] = sum[o];
    }
}

static int32_t alu(int op, int32_t a, int32_t b) {
    const uint32_t u = (uint32_t)a; /* wraps where int32_t would be undefined */
    switch (op) {
    case MIN: return a < b ? a : b;
    case MAX: return a > b ? a : b;
    case ADD: return (int32_t)(u + (uint32_t)b);
    case SHR: return b >= 0 ? a >> (b & 31) : (int32_t)(u << (-b & 31));
    default: return (int32_t)(u * (uint32_t)b);
    }
}

static int compute(const Insn *p, const Sizes *z, const Sram *s) {
    if (p->uop_end > z->depth[UOP] || p->uop_begin > p->uop_end) return BAD_UOP;
    if (p->opcode == ALU && (p->alu_op < MIN || p->alu_op > MUL)) return BAD_CODE;
    for (int64_t o = 0; o < p->iter_out; o++)
        for (int64_t i = 0; i < p->iter_in; i++)
            for (int64_t k = p->uop_begin; k < p->uop_end; k++) {
                const uint32_t u = s->uop[k];
                const int64_t a = acc_index(u) + o * p->acc_out + i * p->acc_in;
                const int64_t x = inp_index(u) + o * p->inp_out + i * p->inp_in;
                const int64_t w = wgt_index(u) + o * p->wgt_out + i * p->wgt_in;
                if (a >= z->depth[ACC]) return BAD_SRAM;
                int32_t *acc = s->acc + a * ACC_WORD;
                if (p->opcode == ALU) {
                    if (!p->use_imm && x >= z->depth[ACC]) return BAD_SRAM;
                    for (int n = 0; n < ACC_WORD; n++)
                        acc[n] = alu(p->alu_op, acc[n], p->use_imm ? p->imm : s->acc[x * ACC_WORD + n]);
                } else if (p->reset) {
                    memset(acc, 0, ACC_WORD * sizeof *acc);
                } else {
                    if (x >= z->depth[INP] || w >= z->depth[WGT]) return BAD_SRAM;
                    mac(acc, s->inp + x * INP_WORD, s->wgt + w * WGT_WORD);
                }
            }
    return FINE;
}

/* In program order. `where` gets the instruction that failed. */
int vta_run(const Insn *program, int64_t n, const Sizes *z, const void *const *dram, int8_t *out, int64_t *where) {
    Sram s = {calloc((size_t)z->depth[UOP], 4), calloc((size_t)z->depth[WGT] * WGT_WORD, 4),
              calloc((size_t)z->depth[INP], INP_WORD), calloc((size_t)z->depth[ACC] * ACC_WORD, 4)};
    int bad = s.uop && s.wgt && s.inp && s.acc ? FINE : NO_MEMORY;
    for (int64_t i = 0; i < n && !bad; i++) {
        const Insn *p = program + i;
        *where = i;
        switch (p->opcode) {
        case LOAD: bad = load(p, z, &s, dram); break;
        case STORE: bad = store(p, z, &s, out); break;
        case GEMM:
        case ALU: bad = compute(p, z, &s); break;
        case FINISH: break;
        default: bad = BAD_CODE;
        }
    }
    free(s.uop), free(s.wgt), free(s.inp), free(s.acc);
    return bad;
}

static int fits(int32_t x, int bits) { return x >= 0 && (int64_t)x < (int64_t)1 << bits; }

/* The first instruction whose fields do not fit their bits or name what is not there; -1 when all do. */
int64_t vta_first_bad(const Insn *program, int64_t n, const Sizes *z) {
    for (int64_t i = 0; i < n; i++) {
        const Insn *p = program + i;
        const int32_t *tokens = &p->pop_prev;
        if (p->opcode < LOAD || p->opcode > ALU) return i;
        for (int k = 0; k < 4; k++)
            if (!fits(tokens[k], 1)) return i;
        if (p->opcode == LOAD || p->opcode == STORE) {
            const int32_t *pads = &p->y_pad0, wide = p->y_size | p->x_size | p->x_stride | p->sram;
            if (!fits(wide, 16) || p->dram < 0 || !fits(p->mem, 3) || p->mem > OUT) return i;
            if (!fits(pads[0] | pads[1] | pads[2] | pads[3], 4) || (p->opcode == STORE) != (p->mem == OUT)) return i;
            if (p->mem == UOP && (p->y_size > 1 || pads[0] + pads[1] + pads[2] + pads[3] ||
                                  p->sram + (int64_t)p->x_size > z->depth[UOP] || p->dram + (int64_t)p->x_size > z->held[UOP]))
                return i;
        } else if (p->opcode != FINISH) {
            const int32_t last = p->opcode == ALU ? 0 : p->wgt_out | p->wgt_in;
            if (!fits(p->reset, 1) || !fits(p->uop_begin, 13) || !fits(p->uop_end | p->iter_out | p->iter_in, 14)) return i;
            if (!fits(p->acc_out | p->acc_in | p->inp_out | p->inp_in, 11) || !fits(last, 10)) return i;
            if (p->opcode == ALU && (!fits(p->alu_op, 3) || !fits(p->use_imm, 1) || p->imm != (int16_t)p->imm)) return i;
            if (p->uop_end > z->depth[UOP] || p->uop_begin > p->uop_end) return i;
        }
    }
    return -1;
}

/* Words that were loaded from UOP, WGT, INP and ACC and stored to OUT, steps of products and of vector operations. */
void vta_count(const Insn *program, int64_t n, int64_t *counters) {
    for (int64_t i = 0; i < n; i++) {
        const Insn *p = program + i;
        if (p->opcode == LOAD || p->opcode == STORE) counters[p->mem] += (int64_t)p->y_size * p->x_size;
        if ((p->opcode == GEMM && !p->reset) || p->opcode == ALU)
            counters[p->opcode == ALU ? 6 : 5] += (int64_t)p->iter_out * p->iter_in * (p->uop_end - p->uop_begin);
    }
}

typedef struct {
    double start, row, bytes_per_cycle, product, alu, fetch, latency;
} Timing;

static int queue_of(const Insn *p) {
    if (p->opcode == STORE) return 2;
    return p->opcode == LOAD && (p->mem == INP || p->mem == WGT) ? 0 : 1;
}

/* Operations between two that write one accumulator: fewer than the latency of a MAC, and the pipeline waits. */
static int64_t reuse(const Insn *p, const uint32_t *uop, int64_t *last) {
    const int64_t n = p->uop_end - p->uop_begin;
    int64_t distance = !p->acc_in && p->iter_in > 1 ? n : INT64_MAX;
    if (!p->acc_out && p->iter_out > 1 && n * p->iter_in < distance) distance = n * p->iter_in;
    for (int64_t k = 0; k < n; k++) last[acc_index(uop[p->uop_begin + k])] = -1;
    for (int64_t k = 0; k < n; k++) {
        const int64_t a = acc_index(uop[p->uop_begin + k]);
        if (last[a] >= 0 && k - last[a] < distance) distance = k - last[a];
        last[a] = k;
    }
    return distance;
}

typedef struct {
    int64_t begin, end, distance;
} Reuse;

static double duration(const Insn *p, const Timing *t, const int64_t *bytes, uint32_t *uop, const uint32_t *from,
                       Reuse *seen, int64_t *last) {
    if (p->opcode == LOAD || p->opcode == STORE) {
        const double row = p->x_size ? (double)(int64_t)((p->x_size * bytes[p->mem]) / t->bytes_per_cycle + 0.999999) : 0;
        const int64_t all = (int64_t)(p->y_pad0 + p->y_size + p->y_pad1) * (p->x_pad0 + p->x_size + p->x_pad1);
        if (p->opcode == LOAD && p->mem == UOP) {
            memcpy(uop + p->sram, from + p->dram, (size_t)p->x_size * 4);
            seen->begin = -1;
        }
        return all ? t->start + p->y_size * (t->row + row) + (double)(all - (int64_t)p->y_size * p->x_size) : 0;
    }
    if (p->opcode == FINISH) return 0;
    const double steps = (double)p->iter_out * p->iter_in * (p->uop_end - p->uop_begin);
    if (p->opcode == ALU) return t->product + t->alu * steps;
    if (p->reset) return t->product + steps;
    if (seen->begin != p->uop_begin || seen->end != p->uop_end) {
        *seen = (Reuse){p->uop_begin, p->uop_end, reuse(p, uop, last)};
    }
    const double stall = seen->distance < t->latency ? t->latency / (double)seen->distance : 1;
    return t->product + steps * stall;
}

/* Which of the FIFOs (load to compute, compute to load, compute to store, store to compute; -1: none) a token of
   queue q to or from its neighbour is in. */
static const int POP_PREV[3] = {-1, 0, 2}, POP_NEXT[3] = {1, 3, -1}, PUSH_PREV[3] = {-1, 1, 3}, PUSH_NEXT[3] = {0, 2, -1};

/* Start and end of every instruction, and (if seen) how many instructions of each queue are over before it starts;
   `where` gets the instruction each queue waits at, or the tokens left in each FIFO. */
int vta_times(const Insn *program, int64_t n, const Timing *t, const int64_t *bytes, const Sizes *z,
              const uint32_t *uops, double *ends, int32_t *seen, int64_t *where, double *busy) {
    int64_t *index = malloc((size_t)(n + 1) * 8), *tokens = malloc((size_t)(4 * n + 4) * 8);
    int64_t *last = malloc(2048 * 8);
    uint32_t *uop = calloc((size_t)z->depth[UOP], 4);
    int64_t count[3] = {0}, first[3], next[3] = {0}, pushed[4] = {0}, popped[4] = {0};
    double free_at[3] = {0};
    int32_t known[3][3] = {{0}};
    Reuse memo[1] = {{-1, -1, 0}};
    if (!index || !tokens || !last || !uop) {
        free(index), free(tokens), free(last), free(uop);
        return NO_MEMORY;
    }
    for (int64_t i = 0; i < n; i++) count[queue_of(program + i)]++;
    first[0] = 0, first[1] = count[0], first[2] = count[0] + count[1];
    for (int64_t i = 0; i < n; i++) {
        const int q = queue_of(program + i);
        index[first[q] + next[q]++] = i;
    }
    next[0] = next[1] = next[2] = 0;
    for (int moved = 1; moved;) {
        moved = 0;
        for (int q = 0; q < 3; q++)
            for (; next[q] < count[q]; next[q]++, moved = 1) {
                const int64_t i = index[first[q] + next[q]];
                const Insn *p = program + i;
                const int pops[2] = {p->pop_prev ? POP_PREV[q] : -2, p->pop_next ? POP_NEXT[q] : -2};
                const int pushes[2] = {p->push_prev ? PUSH_PREV[q] : -2, p->push_next ? PUSH_NEXT[q] : -2};
                double at = free_at[q] > t->fetch * (double)i ? free_at[q] : t->fetch * (double)i;
                int ready = 1;
                for (int k = 0; k < 2; k++) ready &= pops[k] == -2 || (pops[k] >= 0 && popped[pops[k]] < pushed[pops[k]]);
                if (!ready) break;
                for (int k = 0; k < 2; k++) {
                    if (pops[k] < 0) continue;
                    const int64_t from = tokens[pops[k] * (n + 1) + popped[pops[k]]++];
                    if (ends[from] > at) at = ends[from];
                    if (seen)
                        for (int r = 0; r < 3; r++)
                            if (seen[from * 3 + r] > known[q][r]) known[q][r] = seen[from * 3 + r];
                }
                const double took = duration(p, t, bytes, uop, uops, memo, last);
                ends[i] = free_at[q] = at + took;
                busy[q] += took;
                known[q][q] = (int32_t)next[q] + 1;
                if (seen) memcpy(seen + i * 3, known[q], sizeof known[q]);
                for (int k = 0; k < 2; k++)
                    if (pushes[k] >= 0) tokens[pushes[k] * (n + 1) + pushed[pushes[k]]++] = i;
            }
    }
    int bad = FINE;
    for (int f = 0; f < 4; f++) {
        where[3 + f] = pushed[f] - popped[f];
        if (where[3 + f]) bad = TOKEN_LEFT;
    }
    for (int q = 0; q < 3; q++) {
        where[q] = next[q] < count[q] ? index[first[q] + next[q]] : -1;
        if (where[q] >= 0) bad = DEADLOCK;
    }
    free(index), free(tokens), free(last), free(uop);
    return bad;
}

typedef struct {
    int64_t mem, low, high;
    int write;
} Access;

/* From first to last word a product touches: uops and counters are affine. */
static Access span(int mem, int write, const uint32_t *uop, int64_t (*index)(uint32_t), const Insn *p, int64_t out,
                   int64_t in) {
    Access a = {mem, INT64_MAX, -1, write};
    for (int64_t k = p->uop_begin; k < p->uop_end; k++) {
        const int64_t at = index(uop[k]);
        if (at < a.low) a.low = at;
        if (at > a.high) a.high = at;
    }
    a.high += out * (p->iter_out - 1) + in * (p->iter_in - 1);
    return a;
}

static int accesses(const Insn *p, uint32_t *uop, const uint32_t *uops, Access *a) {
    const int64_t size = (int64_t)(p->y_pad0 + p->y_size + p->y_pad1) * (p->x_pad0 + p->x_size + p->x_pad1);
    int n = 0;
    if (p->opcode == LOAD && p->mem == UOP) memcpy(uop + p->sram, uops + p->dram, (size_t)p->x_size * 4);
    if ((p->opcode == LOAD || p->opcode == STORE) && size)
        a[n++] = (Access){p->mem == OUT ? ACC : p->mem, p->sram, p->sram + size - 1, p->opcode == LOAD};
    if ((p->opcode == GEMM || p->opcode == ALU) && p->uop_end > p->uop_begin && p->iter_out && p->iter_in) {
        a[n++] = span(ACC, 1, uop, acc_index, p, p->acc_out, p->acc_in);
        if (p->opcode == GEMM && !p->reset) {
            a[n++] = span(INP, 0, uop, inp_index, p, p->inp_out, p->inp_in);
            a[n++] = span(WGT, 0, uop, wgt_index, p, p->wgt_out, p->wgt_in);
        }
    }
    return n;
}

/* Whether two instructions of different queues touch one word, at least one writes it, and no token orders them. */
int vta_races(const Insn *program, int64_t n, const Sizes *z, const uint32_t *uops, const int32_t *seen,
              int64_t *where) {
    uint32_t *uop = calloc((size_t)z->depth[UOP], 4);
    int32_t *ordinals[4][3][2]; /* [memory][queue][write]: the last instruction of a queue that touched a word */
    int64_t done[3] = {0}, *index = malloc((size_t)(3 * n + 1) * 8);
    int bad = uop && index ? FINE : NO_MEMORY;
    for (int m = 0; m < 4; m++)
        for (int q = 0; q < 3; q++)
            for (int w = 0; w < 2; w++)
                if (!(ordinals[m][q][w] = calloc((size_t)z->depth[m], 4))) bad = NO_MEMORY;
    for (int64_t i = 0; i < n && !bad; i++) {
        const int q = queue_of(program + i);
        Access a[4];
        const int count = accesses(program + i, uop, uops, a);
        index[q * n + done[q]++] = i;
        for (int k = 0; k < count && !bad; k++) {
            if (a[k].high >= z->depth[a[k].mem]) bad = BAD_SRAM;
            for (int64_t x = a[k].low; x <= a[k].high && !bad; x++) {
                for (int r = 0; r < 3; r++)
                    for (int w = !a[k].write; w < 2 && r != q; w++)
                        if (ordinals[a[k].mem][r][w][x] > seen[i * 3 + r]) {
                            bad = RACE;
                            where[0] = index[r * n + ordinals[a[k].mem][r][w][x] - 1];
                        }
                ordinals[a[k].mem][q][a[k].write][x] = (int32_t)done[q];
            }
        }
        where[1] = i;
    }
    for (int m = 0; m < 4; m++)
        for (int q = 0; q < 3; q++)
            for (int w = 0; w < 2; w++) free(ordinals[m][q][w]);
    free(uop), free(index);
    return bad;
}
