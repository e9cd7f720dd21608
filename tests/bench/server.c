// A /classify server that costs next to nothing, so that a benchmark measures its client.
//
//   server [--port P] [--latency-ms L] [--slots S] [--classes C]
//
// One thread, epoll, keep-alive, bodies with a content-length. It answers as vLLM does:
//
//   POST /classify    {"model": ..., "input": [string, ...]} -> a label and C probs (3) for each text
//   POST /pooling     the same -> the probs alone, as float32 (of a client that asks for `bytes_only`)
//   GET  /v1/models   the one model
//   GET  /health      an empty 200
//   GET  /stats       {"requests", "texts", "batch_at"} since the last reset, of both
//   GET  /reset       all counts to zero
//
// `batch_at` is when the first request of more than CANARY texts came, in seconds of CLOCK_MONOTONIC, so a
// benchmark sees when a client's real work began, whatever it asked before.
//
// The answer to a text is a function of the CRC-32 (that of zlib) of its UTF-8 bytes; verify.py holds the same
// function, so every answer in an output can be checked exactly. See `put_item`.
//
// With --latency-ms each request takes that long; with --slots no more than so many are worked on at once, the
// others wait their turn. Both together are what a GPU looks like from outside. For little-endian machines.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CANARY = 4, ROOM = 256 << 10, LONGEST_ITEM = 128, HEAD = 256, MOST_SLOTS = 4096, MOST_CLASSES = 1000 };

static uint64_t latency_ns;
static int slots = MOST_SLOTS, classes = 3;
static struct { unsigned long long requests, texts; double batch_at; } stats;

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// ---- CRC-32, eight bytes at a step ("slicing by 8"): a byte at a time would be half of all the work here

static uint32_t crc_table[8][256];

static void make_crc_table(void) {
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? 0xEDB88320u ^ (crc >> 1) : crc >> 1;
        crc_table[0][byte] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int byte = 0; byte < 256; byte++) {
            uint32_t before = crc_table[k - 1][byte];
            crc_table[k][byte] = crc_table[0][before & 255] ^ (before >> 8);
        }
}

static uint32_t add_to_crc(uint32_t crc, const uint8_t *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        word ^= crc;
        crc = crc_table[7][word & 255] ^ crc_table[6][word >> 8 & 255] ^ crc_table[5][word >> 16 & 255]
            ^ crc_table[4][word >> 24 & 255] ^ crc_table[3][word >> 32 & 255] ^ crc_table[2][word >> 40 & 255]
            ^ crc_table[1][word >> 48 & 255] ^ crc_table[0][word >> 56];
    }
    for (; n; p++, n--) crc = crc_table[0][(crc ^ *p) & 255] ^ (crc >> 8);
    return crc;
}

// ---- buffers

typedef struct { char *data; size_t len, size; } Buffer;

static void make_room(Buffer *b, size_t more) {
    if (b->len + more <= b->size) return;
    while (b->len + more > b->size) b->size = b->size ? 2 * b->size : ROOM;
    if (!(b->data = realloc(b->data, b->size))) abort();
}

static void put(Buffer *b, const char *text) {
    size_t n = strlen(text);
    make_room(b, n);
    memcpy(b->data + b->len, text, n);
    b->len += n;
}

// ---- JSON in: a cursor runs over the body; every function returns where it ended, or NULL if that is no JSON

typedef const uint8_t *Cursor;

static Cursor skip_space(Cursor p, Cursor end) {
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r')) p++;
    return p;
}

// The next quote, backslash or control character. Eight bytes at a step: the usual trick that sets the high bit of
// each byte that is zero, or less than 32. It may also mark a byte after a true hit, never before one.
static Cursor find_special(Cursor p, Cursor end) {
    const uint64_t ones = 0x0101010101010101u, highs = 0x80 * ones;
    for (; end - p >= 8; p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        uint64_t quote = word ^ ('"' * ones), backslash = word ^ ('\\' * ones);
        uint64_t found = ((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) | ((word - 32 * ones) & ~word);
        if (found & highs) return p + (__builtin_ctzll(found & highs) >> 3);
    }
    while (p < end && *p != '"' && *p != '\\' && *p >= 32) p++;
    return p;
}

static Cursor read_hex4(Cursor p, Cursor end, uint32_t *value) {
    char digits[5] = {0}, *stop;
    if (end - p < 4) return NULL;
    memcpy(digits, p, 4);
    *value = strtoul(digits, &stop, 16);
    return stop == digits + 4 ? p + 4 : NULL;
}

// `p` is behind a backslash; the decoded bytes go to `bytes`, their number to `n`.
static Cursor read_escape(Cursor p, Cursor end, uint8_t bytes[4], int *n) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = p < end && *p ? strchr(names, *p) : NULL;
    *n = 1;
    if (name) {
        bytes[0] = values[name - names];
        return p + 1;
    }
    uint32_t code, low;
    if (p >= end || *p != 'u' || !(p = read_hex4(p + 1, end, &code))) return NULL;
    if (code >= 0xD800 && code < 0xE000) {  // characters beyond 16 bits come as a pair
        if (end - p < 6 || p[0] != '\\' || p[1] != 'u' || !(p = read_hex4(p + 2, end, &low))) return NULL;
        if (code >= 0xDC00 || low < 0xDC00 || low >= 0xE000) return NULL;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    *n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int k = *n - 1; k > 0; k--, code >>= 6) bytes[k] = 0x80 | (code & 63);
    bytes[0] = *n == 1 ? code : (0xF00 >> *n & 0xFF) | code;
    return p;
}

// `p` is behind the opening quote; the CRC is that of the decoded bytes.
static Cursor read_string(Cursor p, Cursor end, uint32_t *crc) {
    uint32_t sum = ~0u;
    for (;;) {
        Cursor special = find_special(p, end);
        sum = add_to_crc(sum, p, special - p);
        if (special == end || *special < 32) return NULL;  // not closed; or a bare control character
        if (*special == '"') {
            *crc = ~sum;
            return special + 1;
        }
        uint8_t bytes[4];
        int n;
        if (!(p = read_escape(special + 1, end, bytes, &n))) return NULL;
        sum = add_to_crc(sum, bytes, n);
    }
}

// A value nobody asks for: its brackets are counted, no more.
static Cursor skip_value(Cursor p, Cursor end) {
    uint32_t crc;
    for (int depth = 0; p && p < end;) {
        if (!depth && (*p == ',' || *p == '}')) return p;
        if (*p == '[' || *p == '{') depth++;
        if (*p == ']' || *p == '}') depth--;
        p = *p == '"' ? read_string(p + 1, end, &crc) : p + 1;
    }
    return NULL;
}

// ---- JSON out

// A number below 10^15 as a fraction of 15 digits: a double reads it back as exactly number / 1e15.
static char *put_fraction(char *to, uint64_t number) {
    memcpy(to, "0.", 2);
    for (int k = 16; k > 1; k--, number /= 10) to[k] = '0' + number % 10;
    return to + 17;
}

// The answer to one text: weights from ten bits each of its CRC (turned on after three classes), the probs are their
// shares in 10^15. Returns the class of the largest.
static int score(uint32_t crc, uint64_t *probs) {
    const uint64_t whole = 1000000000000000;
    uint64_t sum = 0, left = whole;
    for (int k = 0; k < classes; k++) {
        if (k && k % 3 == 0) crc = crc * 2654435761u + k;
        sum += probs[k] = (crc >> 10 * (k % 3) & 1023) + 1;
    }
    int best = 0;
    for (int k = 0; k + 1 < classes; k++) left -= probs[k] = probs[k] * whole / sum;
    probs[classes - 1] = left;
    for (int k = 1; k < classes; k++)
        if (probs[k] > probs[best]) best = k;
    return best;
}

static void put_floats(Buffer *out, uint32_t crc) {
    uint64_t probs[MOST_CLASSES];
    score(crc, probs);
    make_room(out, classes * sizeof(float));
    for (int k = 0; k < classes; k++, out->len += sizeof(float)) {
        float value = probs[k] / 1e15;
        memcpy(out->data + out->len, &value, sizeof value);
    }
}

static void put_item(Buffer *out, unsigned index, uint32_t crc) {
    static const char *labels[] = {"negative", "neutral", "positive"};
    uint64_t probs[MOST_CLASSES];
    int best = score(crc, probs);
    char number[12], *digits = number + sizeof number, *to;
    unsigned rest = index;
    do *--digits = '0' + rest % 10; while (rest /= 10);
    make_room(out, LONGEST_ITEM + 20 * classes);
    to = stpcpy(out->data + out->len, index ? ",{\"index\":" : "{\"index\":");
    to = mempcpy(to, digits, number + sizeof number - digits);
    to = stpcpy(to, ",\"label\":\"");
    to = best < 3 ? stpcpy(to, labels[best]) : to + sprintf(to, "class_%d", best);
    to = stpcpy(to, "\",\"probs\":[");
    for (int k = 0; k < classes; k++) {
        if (k) *to++ = ',';
        to = put_fraction(to, probs[k]);
    }
    to += sprintf(to, "],\"num_classes\":%d}", classes);
    out->len = to - out->data;
}

// The items of all texts in the array that starts at `p`.
static Cursor put_items(Buffer *out, Cursor p, Cursor end, unsigned *texts, bool is_binary) {
    uint32_t crc;
    if (p >= end || *p != '[') return NULL;
    p = skip_space(p + 1, end);
    if (p < end && *p == ']') return p + 1;
    while (p < end && *p == '"') {
        if (!(p = read_string(p + 1, end, &crc))) return NULL;
        if (is_binary) put_floats(out, crc); else put_item(out, *texts, crc);
        ++*texts;
        p = skip_space(p, end);
        if (p < end && *p == ']') return p + 1;
        if (p == end || *p != ',') return NULL;
        p = skip_space(p + 1, end);
    }
    return NULL;
}

// The answer to a whole body; false if the body is not what it should be.
static bool classify(Buffer *out, Cursor p, Cursor end, bool is_binary) {
    unsigned texts = 0;
    uint32_t crc;
    bool has_input = false;
    if (!is_binary)
        put(out, "{\"id\":\"classify-1\",\"object\":\"list\",\"created\":1700000000,\"model\":\"bench\",\"data\":[");
    p = skip_space(p, end);
    if (p == end || *p != '{') return false;
    do {
        Cursor key = p = skip_space(p + 1, end);
        if (p == end || *p != '"' || !(p = read_string(p + 1, end, &crc))) return false;
        bool is_input = p - key == 7 && !memcmp(key, "\"input\"", 7);
        p = skip_space(p, end);
        if (p == end || *p != ':') return false;
        p = skip_space(p + 1, end);
        p = is_input ? put_items(out, p, end, &texts, is_binary) : skip_value(p, end);
        has_input |= is_input;
        if (!p) return false;
        p = skip_space(p, end);
    } while (p < end && *p == ',');
    if (!has_input || p == end || *p != '}' || skip_space(p + 1, end) != end) return false;
    if (!is_binary) put(out, "],\"usage\":{\"prompt_tokens\":0,\"total_tokens\":0,\"completion_tokens\":0}}");
    stats.requests++;
    stats.texts += texts;
    if (texts > CANARY && !stats.batch_at) stats.batch_at = now_ns() / 1e9;
    return true;
}

// ---- connections

typedef struct Conn {
    int fd;  // -1: gone, while its request still waits
    Buffer in, out;
    size_t sent;               // of `out`
    size_t body_at, body_len;  // of the request in `in`, once its head is there
    bool is_waiting;           // its answer is ready, and due later
    uint64_t due;
    struct Conn *next;
} Conn;

static int epoll;
static Conn *first_due, *last_due;  // every request takes the same time: who came first is due first
static uint64_t busy_until[MOST_SLOTS];
static unsigned turn;

static void listen_for(Conn *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

static void hang_up(Conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    if (c->is_waiting) return;  // freed when its turn comes
    free(c->in.data);
    free(c->out.data);
    free(c);
}

// Send what is left of the answer; true when all of it is gone and the connection is still there.
static bool send_out(Conn *c) {
    while (c->sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) return listen_for(c, EPOLLOUT), false;
        if (n < 0) return hang_up(c), false;
        c->sent += n;
    }
    return true;
}

// The request lies whole in `in`: write the answer into `out`. The head goes into the room left before the body.
static bool answer(Conn *c) {
    const char *request = c->in.data, *status = "200 OK", *type = "json";
    Cursor body = (Cursor)request + c->body_at;
    Buffer *out = &c->out;
    bool is_binary = !strncmp(request, "POST /pooling ", 14);
    bool is_post = is_binary || !strncmp(request, "POST /classify ", 15);
    char text[256];
    make_room(out, HEAD);
    out->len = HEAD;
    if (is_post) {
        type = is_binary ? "octet-stream" : type;
        if (!classify(out, body, body + c->body_len, is_binary)) {
            type = "json";
            status = "400 Bad Request";
            out->len = HEAD;
            put(out, "{\"error\":{\"message\":\"the body is not {\\\"input\\\": [string, ...]}\",\"code\":400}}");
        }
    } else if (!strncmp(request, "GET /v1/models ", 15)) {
        put(out, "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"max_model_len\":512}]}");
    } else if (!strncmp(request, "GET /stats ", 11)) {
        snprintf(text, sizeof text, "{\"requests\":%llu,\"texts\":%llu,\"batch_at\":%.6f}", stats.requests, stats.texts,
                 stats.batch_at);
        put(out, text);
    } else if (!strncmp(request, "GET /reset ", 11)) {
        memset(&stats, 0, sizeof stats);
    } else if (strncmp(request, "GET /health ", 12)) {
        status = "404 Not Found";
    }
    int head = snprintf(text, sizeof text,
                        "HTTP/1.1 %s\r\nContent-Type: application/%s\r\nContent-Length: %zu\r\n\r\n", status,
                        type, out->len - HEAD);
    c->sent = HEAD - head;
    memcpy(out->data + c->sent, text, head);
    return is_post;
}

// Find the end of the head and the length of the body; false if the head is not whole yet.
static bool read_head(Conn *c) {
    char *end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);
    if (!end) return false;
    *end = 0;  // ends the search below; nobody reads it again
    char *length = strcasestr(c->in.data, "\r\ncontent-length:");
    c->body_at = end + 4 - c->in.data;
    c->body_len = length ? strtoul(length + 17, NULL, 10) : 0;
    return true;
}

static void wait_for_turn(Conn *c) {
    uint64_t now = now_ns(), *slot = &busy_until[turn++ % slots];
    *slot = c->due = (*slot > now ? *slot : now) + latency_ns;
    c->is_waiting = true;
    c->next = NULL;
    if (first_due) last_due->next = c; else first_due = c;
    last_due = c;
    listen_for(c, 0);
}

// Answer all requests that lie whole in `in`, one after the other.
static void work(Conn *c) {
    while (c->body_at || read_head(c)) {
        size_t whole = c->body_at + c->body_len;
        if (c->in.len < whole) return;
        bool is_post = answer(c);
        memmove(c->in.data, c->in.data + whole, c->in.len -= whole);
        c->body_at = 0;
        if (is_post && latency_ns) return wait_for_turn(c);
        if (!send_out(c)) return;
    }
}

static void receive(Conn *c) {
    make_room(&c->in, ROOM);
    ssize_t n = recv(c->fd, c->in.data + c->in.len, c->in.size - c->in.len, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return hang_up(c);
    c->in.len += n;
    work(c);
}

static void send_and_go_on(Conn *c) {
    if (!send_out(c)) return;
    listen_for(c, EPOLLIN);
    work(c);
}

static void send_what_is_due(void) {
    for (uint64_t now = now_ns(); first_due && first_due->due <= now;) {
        Conn *c = first_due;
        first_due = c->next;
        c->is_waiting = false;
        if (c->fd < 0) hang_up(c); else send_and_go_on(c);
    }
}

static void welcome(int listener) {
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), on = 1;
    if (fd < 0) return;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    Conn *c = calloc(1, sizeof *c);
    c->fd = fd;
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int open_listener(int port) {
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&at, size) || listen(listener, 1024)) {
        perror("server");
        exit(1);
    }
    getsockname(listener, (struct sockaddr *)&at, &size);
    printf("http://127.0.0.1:%d\n", ntohs(at.sin_port));  // with --port 0 the kernel has chosen one
    fflush(stdout);
    return listener;
}

int main(int argc, char **argv) {
    int port = 0;
    for (int k = 1; k + 1 < argc; k += 2) {
        if (!strcmp(argv[k], "--port")) port = atoi(argv[k + 1]);
        else if (!strcmp(argv[k], "--latency-ms")) latency_ns = atof(argv[k + 1]) * 1e6;
        else if (!strcmp(argv[k], "--slots")) slots = atoi(argv[k + 1]);
        else if (!strcmp(argv[k], "--classes")) classes = atoi(argv[k + 1]);
        else return fprintf(stderr, "server: unknown option %s\n", argv[k]), 2;
    }
    if (slots < 1 || slots > MOST_SLOTS) return fprintf(stderr, "server: --slots is 1 to %d\n", MOST_SLOTS), 2;
    if (classes < 1 || classes > MOST_CLASSES) return fprintf(stderr, "server: --classes is 1 to %d\n", MOST_CLASSES), 2;
    make_crc_table();
    epoll = epoll_create1(0);
    int listener = open_listener(port);
    struct epoll_event event = {.events = EPOLLIN}, events[64];  // no connection stands for the listener
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        uint64_t now = now_ns();
        int wait_ms = !first_due ? -1 : first_due->due <= now ? 0 : (int)((first_due->due - now) / 1000000) + 1;
        int n = epoll_wait(epoll, events, 64, wait_ms);
        for (int k = 0; k < n; k++) {
            Conn *c = events[k].data.ptr;
            if (!c) welcome(listener);
            else if (events[k].events & EPOLLIN) receive(c);
            else if (events[k].events & EPOLLOUT) send_and_go_on(c);
            else hang_up(c);  // the other side is gone
        }
        send_what_is_due();
    }
}
