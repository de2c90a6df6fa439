/* The board's side of a remote measurement: takes programs over TCP, runs one at a time, gives their line of JSON back.
   A request is a line "token bytes seconds argument...", then the program. Arguments: address, port, file of the token.
   Static, so a board needs nothing but its kernel. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_BYTES = 64 << 20, MOST_LINE = 512, MOST_ANSWER = 4096, MOST_SECONDS = 600, MOST_WORDS = 16 };

static int fails(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    return 1;
}

static void say(int to, const char *text) {
    const ssize_t sent = write(to, text, strlen(text));
    (void)sent;
}

static int same(const char *a, const char *b) { /* takes as long for a wrong token as for the right one */
    const size_t n = strlen(a), m = strlen(b);
    unsigned char differ = n != m;
    for (size_t i = 0; i < n; i++) differ |= (unsigned char)(a[i] ^ b[m ? i % m : 0]);
    return !differ;
}

static int read_all(int from, char *to, size_t n) {
    while (n) {
        const ssize_t got = read(from, to, n);
        if (got <= 0) return 0;
        to += got, n -= (size_t)got;
    }
    return 1;
}

static int read_line(int from, char *line) {
    for (int i = 0; i < MOST_LINE - 1; i++) {
        if (read(from, line + i, 1) != 1) return 0;
        if (line[i] == '\n') {
            line[i] = 0;
            return 1;
        }
    }
    return 0;
}

/* Runs a program from memory; kills it when its time is over. */
static void run(int client, int program, char **words, int seconds) {
    int pipes[2];
    char answer[MOST_ANSWER + 1];
    if (pipe(pipes)) return say(client, "{\"status\":\"device\",\"detail\":\"no pipe\"}\n");
    const pid_t child = fork();
    if (!child) {
        dup2(pipes[1], 1);
        close(pipes[0]), close(client);
        char *environment[] = {0};
        fexecve(program, words, environment);
        _exit(127);
    }
    close(pipes[1]);
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
    const time_t end = time(0) + seconds;
    int status = 0, over = 0;
    size_t n = 0;
    while (!over && time(0) <= end) {
        over = waitpid(child, &status, WNOHANG) == child;
        const ssize_t got = n < MOST_ANSWER ? read(pipes[0], answer + n, MOST_ANSWER - n) : -1;
        if (got > 0) n += (size_t)got;
        else if (!over) nanosleep(&(struct timespec){0, 2000000}, 0);
    }
    if (!over) {
        kill(child, SIGKILL), waitpid(child, &status, 0);
        say(client, "{\"status\":\"timeout\"}\n");
    } else if (WIFSIGNALED(status) || !n) {
        char text[96];
        snprintf(text, sizeof text, "{\"status\":\"crash\",\"detail\":\"%s %d\"}\n", WIFSIGNALED(status) ? "signal" : "exit",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        say(client, text);
    } else {
        answer[n] = 0;
        say(client, answer);
    }
    close(pipes[0]);
}

static void serve(int client, const char *token) {
    char line[MOST_LINE], *rest = line, *words[MOST_WORDS + 2] = {"op"};
    const struct timeval patience = {30, 0};
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (!read_line(client, line)) return;
    const char *given = strsep(&rest, " "), *length = rest ? strsep(&rest, " ") : 0, *limit = rest ? strsep(&rest, " ") : 0;
    if (!limit || !same(given, token)) return say(client, "{\"status\":\"device\",\"detail\":\"wrong token\"}\n");
    const long bytes = atol(length), seconds = atol(limit);
    if (bytes < 1 || bytes > MOST_BYTES || seconds < 1 || seconds > MOST_SECONDS)
        return say(client, "{\"status\":\"device\",\"detail\":\"size or time out of range\"}\n");
    for (int i = 1; rest && i <= MOST_WORDS; i++) words[i] = strsep(&rest, " ");
    char *memory = malloc((size_t)bytes);
    const int program = memfd_create("op", MFD_CLOEXEC);
    if (!memory || program < 0) say(client, "{\"status\":\"device\",\"detail\":\"no memory\"}\n");
    else if (read_all(client, memory, (size_t)bytes) && write(program, memory, (size_t)bytes) == bytes)
        run(client, program, words, (int)seconds);
    free(memory);
    if (program >= 0) close(program);
}

int main(int count, char **words) {
    char token[MOST_LINE] = {0};
    if (count != 4) return fprintf(stderr, "usage: %s ADDRESS PORT TOKEN_FILE\n", words[0]), 2;
    FILE *file = fopen(words[3], "r");
    if (!file || !fgets(token, sizeof token, file)) return fails(words[3]);
    fclose(file);
    token[strcspn(token, " \r\n")] = 0;
    if (strlen(token) < 16) return fprintf(stderr, "%s: a token has at least 16 characters\n", words[3]), 2;
    const int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[2]))};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (!inet_aton(words[1], &at.sin_addr)) return fprintf(stderr, "%s is no address\n", words[1]), 2;
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 8)) return fails(words[1]);
    socklen_t size = sizeof at;
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("{\"port\":%d}\n", ntohs(at.sin_port));
    fflush(stdout);
    signal(SIGPIPE, SIG_IGN);
    for (;;) {
        const int client = accept(listener, 0, 0);
        if (client < 0) continue;
        serve(client, token);
        close(client);
    }
}
