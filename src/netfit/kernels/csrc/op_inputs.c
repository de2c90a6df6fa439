/* Inputs that are the same on every machine. */
static uint32_t op_state = 12345;
static int small(int n) {
    op_state = op_state * 1664525u + 1013904223u;
    return (int)(op_state >> 16) % n;
}
static void *reserve(int64_t bytes) {
    void *p = aligned_alloc(64, ((size_t)bytes + 63) / 64 * 64 + 64);
    if (!p) abort();
    memset(p, 0, (size_t)bytes);
    return p;
}
