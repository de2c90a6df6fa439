/* Test and timing of one operator: compares outputs with the formula as it is written, times it, prints a line of JSON.
   Arguments: repeats, seconds that the repeats may take. */
#include <stdio.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* others on the machine then hardly matter */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int count, char **words) {
    int repeats = count > 1 ? atoi(words[1]) : 30;
    const double budget = count > 2 ? atof(words[2]) : 1.0;
#ifdef READ_BLOCKS
    for (int i = 0; i < 3; i++)
        if (count > 3 + i) blocks[i] = atoll(words[3 + i]);
#endif
    static double seconds[1000];
    if (repeats < 1) repeats = 1;
    if (repeats > 1000) repeats = 1000;
    op_setup();
    op_once();
    double worst = 0;
    int64_t at = 0;
    const int64_t n = op_outputs(), step = n > 97 ? n / 97 : 1;
    for (int64_t i = 0; i < n; i += i + step < n || i == n - 1 ? step : n - 1 - i) {
        const double error = op_error(i);
        if (!(error <= worst)) worst = error, at = i;
    }
    const int wrong = !(worst <= op_tolerance());
    int done = 0;
    for (const double start = now(); done < repeats && (done < 3 || now() - start < budget); done++) {
        const double before = now();
        op_once();
        seconds[done] = now() - before;
    }
    qsort(seconds, (size_t)done, sizeof *seconds, compare);
    printf("{\"status\":\"%s\",\"error\":%.6g,\"at\":%lld,\"min\":%.9g,\"median\":%.9g,\"repeats\":%d}\n",
           wrong ? "wrong_result" : "ok", worst < 1e30 ? worst : 1e30, (long long)at, seconds[0], seconds[done / 2], done);
    return wrong;
}
