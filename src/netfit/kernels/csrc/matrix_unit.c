/* Whether this processor has a matrix unit for int8 and bf16 (AMX), and the system lends it to this program. */
#define _GNU_SOURCE
#if defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
int matrix_unit(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#else
int matrix_unit(void) { return 0; }
#endif
