// Is a JPEG whole? Its Huffman codes are read to the end and their values thrown away: a picture
// that was cut off, or whose bytes were changed, ends too early, too late, or on a code that is
// none. Decoders only warn of that, fill the rest with grey, and succeed. Plain C without Python's
// interface, loaded by ctypes (formats/jpeg.py).
//
// ISO/IEC 10918-1 is meant by the letters and numbers in parentheses. Sequential and progressive
// Huffman frames are read, of 8 bits; of others the answer is UNKNOWN.

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { WHOLE, CUT, CORRUPT, UNKNOWN };

enum {
    LOOK = 11,  // codes up to this many bits are found in one look
    COMPONENTS = 4,
    END = 64,   // coefficients of a block
    PAST = 128,
};

typedef struct {
    int set;
    uint16_t fast[1 << LOOK];  // bits of code and value << 8 | symbol; 0: a longer code, or none
    uint16_t step[1 << LOOK];  // of a sequential block: bits << 8 | coefficients passed
    uint16_t leap[1 << LOOK];  // the same of all the codes that one look shows
    int32_t first[18];         // the first code of each length, and how many there are
    int32_t count[18];
    int32_t index[18];         // of that code's symbol
    uint8_t symbols[256];
} Table;

typedef struct {
    const uint8_t *at, *end;
    uint64_t bits;  // the next bit is the topmost
    int have;       // how many bits, those made up among them
    int made_up;    // how many of them are zeros behind the end of the data
} Bits;

typedef struct {
    int id, h, v;
    ptrdiff_t across, down;        // blocks of the component
    ptrdiff_t stride, rows;        // the same, filled up to whole interleaved units
    uint64_t *seen;                // progressive: which coefficients of a block are not zero
    int8_t accuracy[END];          // the lowest bit that a coefficient has; -1: not seen yet
    int scanned;
} Component;

typedef struct {
    const uint8_t *end;
    Table dc[4], ac[4];
    Component component[COMPONENTS];
    int components, progressive, h_most, v_most, framed;
    ptrdiff_t width, height, interval;
} Picture;

typedef struct {
    int components;
    Component *component[COMPONENTS];
    const Table *dc[COMPONENTS], *ac[COMPONENTS];
    int first, last, high, low;  // Ss, Se, Ah, Al
    int32_t run;                 // EOBRUN
} Scan;

// How many coefficients of a sequential block a symbol passes: past the end, for the one that says
// that the rest is zero; 0: it is none (F.1.2.2).
static inline int passes(int symbol) {
    return !symbol ? PAST : symbol & 15 || symbol == 0xf0 ? (symbol >> 4) + 1 : 0;
}

static int build(Table *table, const uint8_t *counts, const uint8_t *symbols, int total) {
    memset(table, 0, sizeof *table);
    memcpy(table->symbols, symbols, (size_t)total);
    int32_t code = 0, index = 0;
    for (int length = 1; length <= 16; length++, code <<= 1) {
        table->first[length] = code, table->count[length] = counts[length - 1];
        table->index[length] = index;
        for (int i = 0; i < counts[length - 1]; i++, code++, index++)
            if (length <= LOOK)
                for (int32_t low = 0; low < 1 << (LOOK - length); low++) {
                    int32_t entry = (code << (LOOK - length)) + low;
                    if (entry >= 1 << LOOK) return CORRUPT;
                    int bits = (length + (symbols[index] & 15)) << 8, past = passes(symbols[index]);
                    table->fast[entry] = (uint16_t)(bits | symbols[index]);
                    if (past) table->step[entry] = (uint16_t)(bits | past);
                }
        if (code > 1 << length) return CORRUPT;
    }
    for (int look = 0; look < 1 << LOOK; look++) {
        int bits = 0, past = 0, step;
        while (bits < LOOK && past < END && (step = table->step[look << bits & ((1 << LOOK) - 1)])) {
            int length = (step >> 8) - (table->fast[look << bits & ((1 << LOOK) - 1)] & 15);
            // The rest of the code is out of sight, or of the block.
            if (bits + length > LOOK || past + step % PAST > END) break;
            bits += step >> 8, past += step & 255;
        }
        table->leap[look] = (uint16_t)(bits << 8 | past);
    }
    table->set = 1;
    return WHOLE;
}

static void fill_byte_by_byte(Bits *b) {
    while (b->have < 56) {
        uint64_t byte = 0;
        if (b->at < b->end && *b->at != 0xff)
            byte = *b->at++;
        else if (b->at + 1 < b->end && b->at[1] == 0) {
            byte = 0xff;
            b->at += 2;
        } else  // a marker, or nothing more
            b->made_up += 8;
        b->bits |= byte << (56 - b->have);
        b->have += 8;
    }
}

static inline void fill(Bits *b) {
    if (b->end - b->at < 8) {
        fill_byte_by_byte(b);
        return;
    }
    uint64_t next = 0;
    for (int i = 0; i < 8; i++) next = next << 8 | b->at[i];
    if ((~next - 0x0101010101010101u) & next & 0x8080808080808080u) {  // one of them is 0xff
        fill_byte_by_byte(b);
        return;
    }
    // Bits of a byte that does not fit as a whole are written again, the same, by the next fill.
    b->bits |= next >> b->have;
    b->at += (63 - b->have) >> 3;
    b->have |= 56;
}

static inline void drop(Bits *b, int count) {
    b->bits <<= count;
    b->have -= count;
}

static inline int take(Bits *b, int count) {  // 16 at most
    if (!count) return 0;
    if (b->have < count) fill(b);
    int value = (int)(b->bits >> (64 - count));
    drop(b, count);
    return value;
}

// GCC's own is a call where the processor is not known to have the instruction.
static inline int ones(uint64_t bits) {
    bits -= bits >> 1 & 0x5555555555555555u;
    bits = (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
    return (int)(((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0fu) * 0x0101010101010101u >> 56);
}

static inline void skip(Bits *b, int count) {
    for (; count > 16; count -= 16) take(b, 16);
    if (b->have < count) fill(b);
    drop(b, count);
}

// Drops the next code and the value that follows it, of as many bits as the symbol's lower half
// says (F.1.2). Returns the symbol, or -1.
static inline int symbol(Bits *b, const Table *table) {
    if (b->have < 32) fill(b);
    int entry = table->fast[b->bits >> (64 - LOOK)];
    if (entry) {
        drop(b, entry >> 8);
        return entry & 255;
    }
    for (int length = LOOK + 1; length <= 16; length++) {
        int32_t code = (int32_t)(b->bits >> (64 - length)) - table->first[length];
        if (code >= 0 && code < table->count[length]) {
            int found = table->symbols[table->index[length] + code];
            drop(b, length + (found & 15));
            return found;
        }
    }
    return -1;
}

static int sequential(Bits *b, const Table *dc, const Table *ac) {
    int size = symbol(b, dc), k = 1;
    if (size < 0 || size > 15) return CORRUPT;
    while (k < END) {
        fill(b);  // always: whether it is needed is what a processor guesses wrongly
        const int look = (int)(b->bits >> (64 - LOOK)), leap = ac->leap[look];
        int passed = k + (leap & 255);
        if (leap && passed % PAST <= END - (passed >= PAST)) {
            drop(b, leap >> 8);
            k = passed;
        } else if (ac->step[look]) {
            drop(b, ac->step[look] >> 8);
            k += ac->step[look] & 255;
        } else {
            int both = symbol(b, ac);
            if (both < 0 || !passes(both)) return CORRUPT;
            k += passes(both);
        }
    }
    return k == END || k >= PAST ? WHOLE : CORRUPT;
}

static int progressive_first(Bits *b, Scan *scan, uint64_t *seen) {
    if (scan->run) {
        scan->run--;
        return WHOLE;
    }
    for (int k = scan->first; k <= scan->last; k++) {
        int both = symbol(b, scan->ac[0]);
        if (both < 0) return CORRUPT;
        int zeros = both >> 4, size = both & 15;
        if (!size && zeros < 15) {
            scan->run = (1 << zeros) - 1 + take(b, zeros);
            break;
        }
        k += zeros;
        if (k > scan->last) return CORRUPT;
        if (size) *seen |= (uint64_t)1 << k;
    }
    return WHOLE;
}

// A coefficient that is not zero yet has a bit in every scan that refines it (G.1.2.3).
static int progressive_refined(Bits *b, Scan *scan, uint64_t *seen) {
    const uint64_t band = ~(uint64_t)0 >> (END - 1 - scan->last) & ~(uint64_t)0 << scan->first;
    uint64_t refined = *seen & band, zero = ~*seen & band;
    while (!scan->run && (refined || zero)) {
        int both = symbol(b, scan->ac[0]);
        if (both < 0) return CORRUPT;
        int zeros = both >> 4, size = both & 15;
        if (size > 1) return CORRUPT;
        if (!size && zeros < 15) {
            scan->run = (1 << zeros) + take(b, zeros);
            break;
        }
        for (; zeros && zero; zeros--) zero &= zero - 1;
        if (!zero) return CORRUPT;
        uint64_t here = zero & -zero, before = refined & (here - 1);
        skip(b, ones(before));
        refined ^= before, zero ^= here;
        if (size) *seen |= here;
    }
    if (scan->run) {
        skip(b, ones(refined));
        scan->run--;
    }
    return WHOLE;
}

static int block(Bits *b, Scan *scan, int which, ptrdiff_t number, int progressive) {
    int state = WHOLE;
    if (!progressive)
        state = sequential(b, scan->dc[which], scan->ac[which]);
    else if (scan->first) {
        uint64_t *seen = &scan->component[0]->seen[number];
        state = scan->high ? progressive_refined(b, scan, seen) : progressive_first(b, scan, seen);
    } else if (scan->high)
        take(b, 1);
    else {
        int size = symbol(b, scan->dc[which]);
        if (size < 0 || size > 15) return CORRUPT;
    }
    // A code that is none may be the zeros behind the end: that is a cut.
    if (b->have < b->made_up || (state && b->made_up && b->have < b->made_up + 16)) return CUT;
    return state;
}

// One unit (A.2): a block of the only component, or what several components interleave.
static int unit(Bits *b, const Picture *picture, Scan *scan, ptrdiff_t row, ptrdiff_t column) {
    if (scan->components == 1)
        return block(b, scan, 0, row * scan->component[0]->stride + column, picture->progressive);
    for (int i = 0; i < scan->components; i++) {
        const Component *c = scan->component[i];
        for (int y = 0; y < c->v; y++)
            for (int x = 0; x < c->h; x++) {
                ptrdiff_t number = (row * c->v + y) * c->stride + column * c->h + x;
                int state = block(b, scan, i, number, picture->progressive);
                if (state) return state;
            }
    }
    return WHOLE;
}

// What lies between the last code and the marker is less than a byte, and padding.
static int finish(Bits *b, Scan *scan) {
    if (scan->run) return CORRUPT;
    int left = b->have - b->made_up;
    for (drop(b, left & 7), left &= ~7; left; left -= 8) {
        int byte = take(b, 8);
        if (byte && byte != 0xff) return CORRUPT;
    }
    while (b->at + 1 < b->end) {
        if (b->at[0] == 0xff && b->at[1] && b->at[1] != 0xff) {
            b->bits = 0, b->have = 0, b->made_up = 0;
            return WHOLE;
        }
        if (*b->at && *b->at != 0xff) return CORRUPT;
        b->at++;
    }
    return CUT;
}

static int codes(Bits *b, const Picture *picture, Scan *scan) {
    ptrdiff_t across = scan->component[0]->across, down = scan->component[0]->down, done = 0;
    if (scan->components > 1) {
        across = (picture->width + 8 * picture->h_most - 1) / (8 * picture->h_most);
        down = (picture->height + 8 * picture->v_most - 1) / (8 * picture->v_most);
    }
    for (ptrdiff_t row = 0; row < down; row++)
        for (ptrdiff_t column = 0; column < across; column++, done++) {
            if (picture->interval && done && done % picture->interval == 0) {
                int state = finish(b, scan);
                if (state) return state;
                if (b->at[1] != 0xd0 + (done / picture->interval - 1) % 8) return CUT;
                b->at += 2;
            }
            int state = unit(b, picture, scan, row, column);
            if (state) return state;
        }
    return finish(b, scan);
}

static int tables(Picture *picture, const uint8_t *p, const uint8_t *end) {
    while (p + 17 <= end) {
        int total = 0, slot = p[0] & 15;
        for (int i = 1; i <= 16; i++) total += p[i];
        if (slot > 3 || p[0] >> 4 > 1 || total > 256 || p + 17 + total > end) return CORRUPT;
        if (build(p[0] >> 4 ? &picture->ac[slot] : &picture->dc[slot], p + 1, p + 17, total))
            return CORRUPT;
        p += 17 + total;
    }
    return p == end ? WHOLE : CORRUPT;
}

static int frame(Picture *picture, const uint8_t *p, const uint8_t *end, int progressive) {
    if (end - p < 6 || picture->framed || p[0] != 8) return picture->framed ? CORRUPT : UNKNOWN;
    picture->framed = 1, picture->progressive = progressive;
    picture->height = p[1] << 8 | p[2], picture->width = p[3] << 8 | p[4];
    picture->components = p[5];
    if (!picture->height || !picture->width || p[5] < 1 || p[5] > COMPONENTS) return UNKNOWN;
    if (end - p < 6 + 3 * p[5]) return CORRUPT;
    for (int i = 0; i < p[5]; i++) {
        Component *c = &picture->component[i];
        c->id = p[6 + 3 * i], c->h = p[7 + 3 * i] >> 4, c->v = p[7 + 3 * i] & 15;
        if (c->h < 1 || c->h > 4 || c->v < 1 || c->v > 4) return CORRUPT;
        if (c->h > picture->h_most) picture->h_most = c->h;
        if (c->v > picture->v_most) picture->v_most = c->v;
        memset(c->accuracy, -1, sizeof c->accuracy);
    }
    for (int i = 0; i < p[5]; i++) {
        Component *c = &picture->component[i];
        ptrdiff_t wide = 8 * picture->h_most, high = 8 * picture->v_most;
        c->across = (picture->width * c->h + wide - 1) / wide;
        c->down = (picture->height * c->v + high - 1) / high;
        c->stride = (picture->width + wide - 1) / wide * c->h;
        c->rows = (picture->height + high - 1) / high * c->v;
        if (progressive) {
            c->seen = calloc((size_t)(c->stride * c->rows), sizeof *c->seen);
            if (!c->seen) return UNKNOWN;
        }
    }
    return WHOLE;
}

// Reads a scan's header (B.2.3); what it promises is noted in `accuracy` (G.1.1.1).
static int begin(Picture *picture, Scan *scan, const uint8_t *p, const uint8_t *end) {
    memset(scan, 0, sizeof *scan);
    if (!picture->framed || end - p < 1 || p[0] < 1 || p[0] > COMPONENTS || end - p < 4 + 2 * p[0])
        return CORRUPT;
    const uint8_t *tail = p + 1 + 2 * p[0];
    scan->components = p[0];
    scan->first = picture->progressive ? tail[0] : 0;
    scan->last = picture->progressive ? tail[1] : END - 1;
    scan->high = picture->progressive ? tail[2] >> 4 : 0;
    scan->low = picture->progressive ? tail[2] & 15 : 0;
    if (scan->last >= END || scan->first > scan->last || (scan->first && p[0] > 1)) return CORRUPT;
    if (picture->progressive && !scan->first && scan->last) return CORRUPT;
    for (int i = 0; i < p[0]; i++) {
        int dc = p[2 + 2 * i] >> 4, ac = p[2 + 2 * i] & 15;
        for (int j = 0; j < picture->components; j++)
            if (picture->component[j].id == p[1 + 2 * i]) scan->component[i] = &picture->component[j];
        if (!scan->component[i] || dc > 3 || ac > 3) return CORRUPT;
        scan->dc[i] = &picture->dc[dc], scan->ac[i] = &picture->ac[ac];
        // Motion JPEG leaves the tables away that everyone knows: a decoder may have them.
        if (!scan->first && !scan->high && !scan->dc[i]->set) return UNKNOWN;
        if (scan->last && !scan->ac[i]->set) return UNKNOWN;
        for (int k = scan->first; k <= scan->last; k++) {
            int8_t *accuracy = &scan->component[i]->accuracy[k];
            if (picture->progressive && (*accuracy < 0 ? scan->high != 0 : scan->high != *accuracy))
                return CORRUPT;
            *accuracy = (int8_t)scan->low;
        }
    }
    return WHOLE;
}

static int complete(const Picture *picture) {
    for (int i = 0; i < picture->components; i++)
        for (int k = 0; k < END; k++)
            if (picture->component[i].accuracy[k]) return CUT;
    return picture->framed ? WHOLE : CUT;
}

static int walk(Picture *picture, const uint8_t **at) {
    const uint8_t *p = *at, *end = picture->end;
    for (;;) {
        while (p + 1 < end && (p[0] != 0xff || !p[1] || p[1] == 0xff)) p++;
        if (p + 1 >= end) return CUT;
        int marker = p[1];
        p += 2;
        *at = p;
        if (marker == 0xd9) return complete(picture);
        if (marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) continue;
        if (end - p < 2) return CUT;
        const uint8_t *content = p + 2;
        ptrdiff_t length = p[0] << 8 | p[1];
        if (length < 2) return CORRUPT;
        if (end - p < length) return CUT;
        p += length;
        int state = WHOLE;
        if (marker == 0xc4)
            state = tables(picture, content, p);
        else if (marker == 0xdd && length >= 4)
            picture->interval = content[0] << 8 | content[1];
        else if (marker >= 0xc0 && marker <= 0xc2)
            state = frame(picture, content, p, marker == 0xc2);
        else if (marker >= 0xc3 && marker <= 0xcf)
            state = UNKNOWN;  // lossless, hierarchical or arithmetic
        else if (marker == 0xda) {
            Scan scan;
            state = begin(picture, &scan, content, p);
            if (!state) {
                Bits bits = {.at = p, .end = end};
                state = codes(&bits, picture, &scan);
                p = bits.at;
            }
        }
        if (state) return state;
    }
}

#if defined(_WIN32)
__declspec(dllexport)
#endif
// Reads one JPEG of `size` bytes from `data` on. Returns WHOLE and, in `used`, how many bytes it
// takes up; or CUT, CORRUPT or UNKNOWN.
int icnet_jpeg_state_1(const uint8_t *data, size_t size, size_t *used) {
    Picture *picture = calloc(1, sizeof *picture);
    if (!picture) return UNKNOWN;
    picture->end = data + size;
    const uint8_t *at = data;
    int state = walk(picture, &at);
    *used = (size_t)(at - data);
    for (int i = 0; i < COMPONENTS; i++) free(picture->component[i].seen);
    free(picture);
    return state;
}
