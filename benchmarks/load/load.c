/* A bounded HTTP/1.1 load client: one thread, epoll, N keep-alive connections with one request under way on each.
 *
 *   load --port P --targets FILE [options]        FILE: lines "path[ TAB body-length[ TAB header[ TAB body]]]"
 *
 * A length of -1, or none, is any; header and body are sent with that request.
 *
 * It ends after --seconds, or --requests, or --errors, whatever comes first, and prints one JSON object. Latency runs from
 * writing a request to the last byte of its answer. Only what completes between warm-up and end is counted, so that by
 * Little's law (L = lambda W) requests/s times mean latency gives the number of connections, unless some starve.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { HEAD = 4096, SINK = 1 << 18, DRAWS = 1 << 16, SUB = 64, BUCKETS = 64 * SUB, WATCHED = 64, TICK_MS = 50 };
enum state { IDLE, CONNECTING, HANDSHAKE, SENDING, READING_HEAD, READING_BODY };
enum failure { CONNECT, UNANSWERED, CUT, STATUS, LENGTH, MALFORMED, TLS_FAILED, FAILURES };
static const char *const FAILURE[] = {"connect", "unanswered", "cut", "status", "length", "malformed", "tls"};

struct target { char *request; size_t size; long body; };
struct connection {
    int fd; uint32_t events; enum state state; SSL *ssl; const struct target *target;
    size_t sent, have, number, next; long left, served; int closes; uint64_t began, opened, taken, completions;
    char head[HEAD + 1];
};

static struct {
    const char *address, *targets, *name, *path, *method;
    int port, connections, status, tls, core, discard, each, own, receive_buffer, per_connection;
    double seconds, warmup, zipf;
    uint64_t requests, errors, seed, rate;
    char *headers;
} opt = {.address = "127.0.0.1", .name = "localhost", .method = "GET", .connections = 64, .status = 200, .core = -1, .seconds = 3,
         .requests = UINT64_MAX, .errors = 100, .seed = 1};

static struct target *targets; static size_t target_count;
static uint32_t draws[DRAWS]; static size_t drawn;
static struct connection *connections;
static SSL_CTX *tls_context;
static int poller, active;
static char sink[SINK];
static int counting;
static uint64_t started, requests, all_requests, bytes, latency_sum, latency_max, opened, failed;
static uint64_t failures[FAILURES], histogram[BUCKETS];
static char first_failure[300];
static pid_t watched[WATCHED]; static int watched_count; static double watched_cpu[WATCHED];

static void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(2);
}

/* Not for a failed call: errno says nothing. */
static void refuse(const char *what) {
    errno = 0;
    die(what);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Log-linear buckets: 64 to an octave, so within 1.6 %. */
static int bucket(uint64_t ns) {
    if (ns < SUB) return (int)ns;
    int shift = 63 - __builtin_clzll(ns) - 6;
    return (shift + 1) * SUB + (int)((ns >> shift) & (SUB - 1));
}

static double bucket_value(int n) {
    return n < SUB ? n : ldexp(SUB + n % SUB + 0.5, n / SUB - 1);
}

static double percentile(double part) {
    uint64_t rank = (uint64_t)ceil(part * (double)requests), seen = 0;
    for (int n = 0; n < BUCKETS; n++)
        if ((seen += histogram[n]) >= rank && seen) return bucket_value(n) / 1e9;
    return 0;
}

static void read_targets(void) {
    FILE *file = fopen(opt.targets, "r");
    char *line = NULL; size_t room = 0; ssize_t n;
    if (!file) die(opt.targets);
    while ((n = getline(&line, &room, file)) > 0) {
        if (line[n - 1] == '\n') line[--n] = 0;
        if (!n) continue;
        char *rest = line, *columns[4] = {NULL};
        for (int k = 0; k < 4 && rest; k++) columns[k] = strsep(&rest, "\t");
        if (!(target_count & (target_count - 1))) {  // room doubles at each power of two
            targets = realloc(targets, (target_count ? target_count * 2 : 1) * sizeof *targets);
            if (!targets) die("memory");
        }
        struct target *t = &targets[target_count++];
        t->body = columns[1] ? atol(columns[1]) : -1;
        const char *header = columns[2] ? columns[2] : "", *body = columns[3] ? columns[3] : "";
        char length[40] = "";
        if (strcmp(opt.method, "GET")) snprintf(length, sizeof length, "Content-Length: %zu\r\n", strlen(body));
        int size = asprintf(&t->request, "%s %s HTTP/1.1\r\nHost: %s:%d\r\n%s%s%s%s\r\n%s", opt.method, columns[0], opt.name,
                            opt.port, opt.headers, length, header, *header ? "\r\n" : "", body);
        if (size < 0) die("memory");
        t->size = (size_t)size;
    }
    free(line);
    fclose(file);
    if (!target_count) refuse("no targets");
}

/* The same draws for every run of one seed: by Zipf (the n-th line weighs 1/n^s), or in turn. */
static void draw_targets(void) {
    double *sum = malloc(target_count * sizeof *sum), total = 0;
    uint64_t state = opt.seed * 2685821657736338717u + 1;
    if (!sum) die("memory");
    for (size_t n = 0; n < target_count; n++) sum[n] = total += pow((double)n + 1, -opt.zipf);
    for (size_t n = 0; n < DRAWS; n++) {
        if (opt.zipf == 0) { draws[n] = (uint32_t)(n % target_count); continue; }
        state ^= state << 13; state ^= state >> 7; state ^= state << 17;  // xorshift64 (Marsaglia 2003)
        double wanted = (double)(state >> 11) / 9007199254740992.0 * total;
        size_t low = 0, high = target_count - 1;
        while (low < high) { size_t middle = (low + high) / 2; if (sum[middle] < wanted) low = middle + 1; else high = middle; }
        draws[n] = (uint32_t)low;
    }
    free(sum);
}

/* What to ask for next; NULL where nothing is left to ask. */
static const struct target *choose(struct connection *c) {
    if (started >= opt.requests) return NULL;
    if (opt.own) return &targets[c->number % target_count];
    if (!opt.each) return opt.zipf == 0 ? &targets[drawn++ % target_count] : &targets[draws[drawn++ % DRAWS]];
    size_t share = target_count / (size_t)opt.connections;
    return c->next < share ? &targets[c->number * share + c->next++] : NULL;
}

static void want(struct connection *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    if (events != c->events && epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &event)) die("epoll_ctl");
    c->events = events;
}

static void shut(struct connection *c) {
    if (c->ssl) { SSL_free(c->ssl); c->ssl = NULL; }
    if (c->fd >= 0) { close(c->fd); c->fd = -1; active--; }
    c->state = IDLE;
}

static void fail(struct connection *c, enum failure kind, const char *detail) {
    failures[kind]++;
    failed++;
    if (!*first_failure) {
        snprintf(first_failure, sizeof first_failure, "%s: %s", FAILURE[kind], detail);
        for (char *p = first_failure; *p; p++) if (*p == '"' || *p == '\\' || (unsigned char)*p < 32) *p = '\'';
    }
    shut(c);
}

static void open_connection(struct connection *c) {
    struct sockaddr_in inet = {.sin_family = AF_INET, .sin_port = htons((uint16_t)opt.port)};
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    const struct sockaddr *to = opt.path ? (void *)&local : (void *)&inet;
    struct epoll_event event = {.events = EPOLLOUT, .data.ptr = c};
    int yes = 1;
    if (inet_pton(AF_INET, opt.address, &inet.sin_addr) != 1) die("not an IPv4 address");
    if (opt.path) strncpy(local.sun_path, opt.path, sizeof local.sun_path - 1);
    c->fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) die("socket");
    active++;
    if (!opt.path) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    if (opt.receive_buffer) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &opt.receive_buffer, sizeof opt.receive_buffer);
    c->state = CONNECTING;
    c->events = EPOLLOUT;
    c->opened = now();
    c->taken = 0, c->served = 0;
    if (epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    opened++;
    if (connect(c->fd, to, opt.path ? sizeof local : sizeof inet) && errno != EINPROGRESS) fail(c, CONNECT, strerror(errno));
}

/* Bytes written or read; 0: the other side ended; -1: not now; -2: failed. */
static ssize_t tls_result(struct connection *c, int n) {
    if (n > 0) return n;
    int why = SSL_get_error(c->ssl, n);
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return -1;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : -2;
}

static ssize_t transmit(struct connection *c, const char *data, size_t size) {
    if (c->ssl) return tls_result(c, SSL_write(c->ssl, data, (int)size));
    ssize_t n = send(c->fd, data, size, MSG_NOSIGNAL);
    return n >= 0 ? n : errno == EAGAIN ? -1 : -2;
}

static ssize_t receive(struct connection *c, char *data, size_t size, int flags) {
    if (c->ssl) return tls_result(c, SSL_read(c->ssl, data, (int)size));
    ssize_t n = recv(c->fd, data, size, flags);
    return n >= 0 ? n : errno == EAGAIN ? -1 : -2;
}

static void send_request(struct connection *c) {
    while (c->sent < c->target->size) {
        ssize_t n = transmit(c, c->target->request + c->sent, c->target->size - c->sent);
        if (n == -1) { want(c, EPOLLIN | EPOLLOUT); return; }
        if (n < 0) { fail(c, UNANSWERED, "the request could not be written"); return; }
        c->sent += (size_t)n;
    }
    c->state = READING_HEAD;
    want(c, opt.rate ? 0 : EPOLLIN);
}

static void begin_request(struct connection *c, uint64_t at) {
    c->target = choose(c);
    if (!c->target) { shut(c); return; }
    started++;
    c->state = SENDING;
    c->sent = c->have = 0;
    c->left = -1, c->closes = 0, c->began = at;
    send_request(c);
}

static void finish(struct connection *c) {
    uint64_t at = now(), took = at - c->began;
    all_requests++, c->served++;
    if (counting) {
        c->completions++, requests++;
        latency_sum += took;
        if (took > latency_max) latency_max = took;
        histogram[bucket(took)]++;
    }
    if (c->closes || (opt.per_connection && c->served >= opt.per_connection)) { shut(c); return; }
    begin_request(c, at);
}

/* Field `name` (with its colon) of the head, or NULL. */
static const char *field(const struct connection *c, const char *name) {
    size_t size = strlen(name);
    for (const char *line = strstr(c->head, "\r\n"); line && line[2]; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, size)) return line + 2 + size + strspn(line + 2 + size, " ");
    return NULL;
}

/* The head is whole: `size` bytes of it, what follows is body. */
static void read_head(struct connection *c, size_t size) {
    char told[160], *end = c->head + size - 2, kept = *end;
    *end = 0;  // after the last field's line end
    int status = !strncmp(c->head, "HTTP/1.1 ", 9) ? atoi(c->head + 9) : 0;
    const char *length = field(c, "Content-Length:"), *connection = field(c, "Connection:");
    long body = status == 304 ? 0 : length ? atol(length) : -1;
    c->closes = connection && !strncasecmp(connection, "close", 5);
    *end = kept;
    if (status != opt.status) {
        snprintf(told, sizeof told, "%d instead of %d for %.60s", status, opt.status, c->target->request + 4);
        fail(c, status ? STATUS : MALFORMED, told);
    } else if (body < 0) {
        fail(c, MALFORMED, "no Content-Length");
    } else if (c->target->body >= 0 && body != c->target->body) {
        snprintf(told, sizeof told, "%ld bytes instead of %ld for %.60s", body, c->target->body, c->target->request + 4);
        fail(c, LENGTH, told);
    } else if ((long)(c->have - size) > body) {
        fail(c, LENGTH, "more bytes than announced");
    } else {
        c->left = body - (long)(c->have - size);
        c->state = READING_BODY;
        if (!c->left) finish(c);
    }
}

/* Read up to `limit` bytes, or until the answer is whole. */
static void read_answer(struct connection *c, size_t limit) {
    while (limit && (c->state == READING_HEAD || c->state == READING_BODY)) {
        int head = c->state == READING_HEAD;
        size_t room = head ? HEAD - c->have : c->left < SINK ? (size_t)c->left : SINK;
        if (room > limit) room = limit;
        // A body is counted; with MSG_TRUNC the kernel drops it without copying (tcp(7)).
        ssize_t n = receive(c, head ? c->head + c->have : sink, room, head || !opt.discard ? 0 : MSG_TRUNC);
        if (n == -1) return;
        if (n <= 0) { fail(c, head && !c->have ? UNANSWERED : CUT, n ? "reset" : "closed"); return; }
        if (counting) bytes += (uint64_t)n;
        c->taken += (uint64_t)n;
        limit -= (size_t)n;
        if (head) {
            c->have += (size_t)n;
            c->head[c->have] = 0;
            char *end = strstr(c->head, "\r\n\r\n");
            if (end) read_head(c, (size_t)(end + 4 - c->head));
            else if (c->have == HEAD) fail(c, MALFORMED, "the head is too long");
        } else if (!(c->left -= n)) {
            finish(c);
        }
        // It was all there was, or the next answer has only just been asked for; TLS may hold back more.
        if (!c->ssl && ((size_t)n < room || c->state != READING_BODY)) return;
    }
}

static void handshake(struct connection *c) {
    int n = SSL_connect(c->ssl);
    if (n == 1) { begin_request(c, now()); return; }
    int why = SSL_get_error(c->ssl, n);
    if (why == SSL_ERROR_WANT_READ) want(c, EPOLLIN);
    else if (why == SSL_ERROR_WANT_WRITE) want(c, EPOLLOUT);
    else fail(c, TLS_FAILED, "handshake");
}

static void connected(struct connection *c) {
    int why = 0; socklen_t size = sizeof why;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &why, &size);
    if (why) { fail(c, CONNECT, strerror(why)); return; }
    if (!opt.tls) { begin_request(c, now()); return; }
    c->ssl = SSL_new(tls_context);
    if (!c->ssl || !SSL_set_fd(c->ssl, c->fd)) die("OpenSSL");
    c->state = HANDSHAKE;
    handshake(c);
}

static void serve(struct connection *c) {
    if (c->state == CONNECTING) connected(c);
    else if (c->state == HANDSHAKE) handshake(c);
    else if (c->state == SENDING) send_request(c);
    else if (!opt.rate) read_answer(c, SIZE_MAX);
}

/* Slow readers: each connection takes what its rate has allowed since it was opened. */
static void take_slowly(void) {
    uint64_t at = now();
    for (int n = 0; n < opt.connections; n++) {
        struct connection *c = &connections[n];
        uint64_t allowed = (uint64_t)((double)(at - c->opened) / 1e9 * (double)opt.rate);
        if (allowed > c->taken) read_answer(c, allowed - c->taken);
    }
}

static double own_cpu(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* CPU seconds of a process with all its threads, to the nanosecond. */
static double cpu_of(pid_t pid) {
    clockid_t clock; struct timespec t;
    if (clock_getcpuclockid(pid, &clock) || clock_gettime(clock, &t)) refuse("a watched process has gone");
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int by_value(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void report(double seconds, double cpu) {
    uint64_t served[opt.connections];
    for (int n = 0; n < opt.connections; n++) served[n] = connections[n].completions;
    qsort(served, (size_t)opt.connections, sizeof *served, by_value);
    double mean = requests ? (double)latency_sum / 1e9 / (double)requests : 0, server = 0;
    for (int n = 0; n < watched_count; n++) server += cpu_of(watched[n]) - watched_cpu[n];
    printf("{\"requests\": %lu, \"requests_with_warmup\": %lu, \"bytes\": %lu, \"seconds\": %.6f, ", requests, all_requests,
           bytes, seconds);
    printf("\"latency\": {\"mean\": %.9f, \"p50\": %.9f, \"p90\": %.9f, \"p99\": %.9f, \"p999\": %.9f, \"max\": %.9f}, ",
           mean, percentile(.5), percentile(.9), percentile(.99), percentile(.999), (double)latency_max / 1e9);
    printf("\"connections\": %d, \"opened\": %lu, ", opt.connections, opened);
    printf("\"completions\": {\"min\": %lu, \"median\": %lu, \"max\": %lu}, ", served[0], served[opt.connections / 2],
           served[opt.connections - 1]);
    printf("\"in_flight\": %.4f, \"cpu\": %.6f, \"server_cpu\": %.6f, \"errors\": {", (double)requests / seconds * mean, cpu,
           server);
    for (int n = 0; n < FAILURES; n++) printf("%s\"%s\": %lu", n ? ", " : "", FAILURE[n], failures[n]);
    printf("}, \"first_error\": \"%s\"}\n", first_failure);
}

/* Where a connection was ended, by either side or by an error, another takes its place. */
static void reopen(struct connection *c) {
    if (c->fd < 0 && !opt.each && failed < opt.errors && started < opt.requests) open_connection(c);
}

static int done(uint64_t at, uint64_t end) {
    return at >= end || failed >= opt.errors || (!active && (opt.each || started >= opt.requests));
}

static void run(void) {
    struct epoll_event events[256];
    uint64_t looked = now(), begin = looked + (uint64_t)(opt.warmup * 1e9), end = UINT64_MAX;
    double cpu = 0;
    for (int n = 0; n < opt.connections; n++) open_connection(&connections[n]);
    for (;;) {
        uint64_t at = now();
        if (!counting && at >= begin) {
            counting = 1;
            begin = at;
            end = at + (uint64_t)(opt.seconds * 1e9);
            cpu = own_cpu();
            for (int n = 0; n < watched_count; n++) watched_cpu[n] = cpu_of(watched[n]);
        }
        if (done(at, end)) break;
        uint64_t wait = ((counting ? end : begin) - at) / 1000000 + 1;
        int count = epoll_wait(poller, events, 256, wait < TICK_MS ? (int)wait : TICK_MS);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int n = 0; n < count; n++) {
            struct connection *c = events[n].data.ptr;
            if (c->fd >= 0) serve(c);
            if (c->fd < 0 && c->served) reopen(c);
        }
        if (opt.rate) take_slowly();
        if (now() - looked >= TICK_MS * 1000000ull) {  // those that were never served wait a little
            for (int n = 0; n < opt.connections; n++) reopen(&connections[n]);
            looked = now();
        }
    }
    if (!counting) refuse(*first_failure ? first_failure : "ended before the warm-up was over");
    report((double)(now() - begin) / 1e9, own_cpu() - cpu);
}

static void add_header(const char *text) {
    char *joined;
    if (asprintf(&joined, "%s%s\r\n", opt.headers, text) < 0) die("memory");
    free(opt.headers);
    opt.headers = joined;
}

static void options(int argc, char **argv) {
    static const struct option known[] = {
        {"address", 1, 0, 'a'}, {"port", 1, 0, 'p'}, {"name", 1, 0, 'n'}, {"connections", 1, 0, 'c'},
        {"targets", 1, 0, 't'}, {"seconds", 1, 0, 's'}, {"warmup", 1, 0, 'w'}, {"requests", 1, 0, 'r'},
        {"errors", 1, 0, 'e'}, {"zipf", 1, 0, 'z'}, {"seed", 1, 0, 'd'}, {"header", 1, 0, 'h'}, {"status", 1, 0, 'u'},
        {"tls", 0, &opt.tls, 1}, {"core", 1, 0, 'C'}, {"discard", 0, &opt.discard, 1}, {"rate", 1, 0, 'R'},
        {"each", 0, &opt.each, 1}, {"receive-buffer", 1, 0, 'b'}, {"per-connection", 1, 0, 'k'}, {"watch", 1, 0, 'W'},
        {"unix", 1, 0, 'U'}, {"method", 1, 0, 'M'}, {"own", 0, &opt.own, 1}, {0, 0, 0, 0}};
    opt.headers = strdup("");
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (o) {
        case 'a': opt.address = optarg; break;
        case 'U': opt.path = optarg; break;
        case 'M': opt.method = optarg; break;
        case 'p': opt.port = atoi(optarg); break;
        case 'n': opt.name = optarg; break;
        case 'c': opt.connections = atoi(optarg); break;
        case 't': opt.targets = optarg; break;
        case 's': opt.seconds = atof(optarg); break;
        case 'w': opt.warmup = atof(optarg); break;
        case 'r': opt.requests = strtoull(optarg, NULL, 10); break;
        case 'e': opt.errors = strtoull(optarg, NULL, 10); break;
        case 'z': opt.zipf = atof(optarg); break;
        case 'd': opt.seed = strtoull(optarg, NULL, 10); break;
        case 'h': add_header(optarg); break;
        case 'u': opt.status = atoi(optarg); break;
        case 0: break;
        case 'C': opt.core = atoi(optarg); break;
        case 'R': opt.rate = strtoull(optarg, NULL, 10); break;
        case 'b': opt.receive_buffer = atoi(optarg); break;
        case 'k': opt.per_connection = atoi(optarg); break;
        case 'W': if (watched_count < WATCHED) watched[watched_count++] = atoi(optarg); break;
        default: exit(2);
    }
    if ((!opt.port && !opt.path) || !opt.targets || opt.connections < 1 || opt.seconds <= 0)
        refuse("--port or --unix, --targets, at least one connection and some time");
}

int main(int argc, char **argv) {
    options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    if (opt.core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(opt.core, &set);
        if (sched_setaffinity(0, sizeof set, &set)) die("--core");
    }
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    read_targets();
    draw_targets();
    if (opt.each && target_count % (size_t)opt.connections) refuse("--each: as many targets for each connection");
    if (opt.tls) {
        tls_context = SSL_CTX_new(TLS_client_method());
        if (!tls_context || !SSL_CTX_set_min_proto_version(tls_context, TLS1_3_VERSION)) die("OpenSSL");
        SSL_CTX_set_alpn_protos(tls_context, (const unsigned char *)"\x08http/1.1", 9);
        SSL_CTX_set_mode(tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_RELEASE_BUFFERS);
    }
    connections = calloc((size_t)opt.connections, sizeof *connections);
    poller = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || poller < 0) die("epoll_create1");
    for (int n = 0; n < opt.connections; n++) connections[n].fd = -1, connections[n].number = (size_t)n;
    run();
    return 0;
}
