/* The check of LMDB files: what LMDB wrote is whole, with trees of some depth and free pages; what
 * was bent in one place is not, or is harmless. */
#include "c/store/lmdb_world.h"
#include "store/lmdb_check.h"

enum { PAGE = 4096, LONG = 3600 * 1000 };

static uint8_t *file;
static off_t size;

/* Branches, values within leaves and on pages of their own, freed pages. */
static void make_file(void)
{
    enum { COUNT = 1500 };
    struct world w;
    static struct got got[COUNT];
    static char value[5000];
    world_open(&w);
    for (unsigned n = 0; n < COUNT; n++) {
        got[n] = (struct got){.times = 0};
        start_put(&w, n, ml_str(value, n % 3 ? 20 : sizeof value), LONG, 0, n % 7, &got[n]);
    }
    for (unsigned n = 0; n < COUNT; n++)
        assert_true(wait_for(&w, &got[n])->found);
    for (unsigned i = 0; i < 3; i++)
        assert_true(end_all(&w, i).count > 100);
    world_close(&w);
    int fd = open(path_of("store"), O_RDONLY);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    size = st.st_size;
    file = malloc((size_t)size);
    assert_int_equal(read(fd, file, (size_t)size), size);
    close(fd);
}

/* NULL: whole. */
static const char *check(const uint8_t *bytes, off_t n)
{
    FILE *f = tmpfile();
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, (size_t)n, f), n);
    fflush(f);
    const char *why = ml_lmdb_check(fileno(f), n);
    fclose(f);
    return why;
}

static uint16_t half(off_t at)
{
    uint16_t n;
    memcpy(&n, file + at, sizeof n);
    return n;
}

static bool is_live(off_t page)
{
    uint8_t saved[2];
    off_t at = page * PAGE + 10;
    memcpy(saved, file + at, sizeof saved);
    memset(file + at, 0xff, sizeof saved);
    bool live = check(file, size) != NULL;
    memcpy(file + at, saved, sizeof saved);
    return live;
}

static void whole_and_bent(void **state)
{
    unsigned branches = 0, leaves = 0;
    make_file();
    assert_null(check(file, size));
    assert_null(check(file, 0));
    assert_string_equal(check(file, 10), "it is too short");
    assert_string_equal(check(file, PAGE), "its second meta page is damaged");
    assert_string_equal(check(file, 3 * PAGE), "it is shorter than it says");
    for (off_t page = 2; page < size / PAGE; page++) {
        uint16_t flags = half(page * PAGE + 10);
        if ((flags != 1 && (flags != 2 || leaves > 12)) || !is_live(page))
            continue;
        branches += flags == 1;
        leaves += flags == 2;
        uint8_t saved[PAGE], *p = file + page * PAGE;
        memcpy(saved, p, sizeof saved);
        for (int i = 0; i < 200; i++) { /* any byte: it is refused or it does no harm */
            size_t at = (size_t)(i * 7919) % PAGE;
            p[at] ^= (uint8_t)(1 << i % 8);
            check(file, size);
            memcpy(p, saved, sizeof saved);
        }
        uint8_t *first = p + half(page * PAGE + 16), *second = p + half(page * PAGE + 18);
        if (flags == 1) { /* two ways to one child */
            memcpy(second, first, 6);
            assert_string_equal(check(file, size), "a page is used twice");
            memset(second, 0xff, 6);
            assert_string_equal(check(file, size), "a page lies outside of it");
        } else {
            memset(first + 6, 0xff, 2); /* a key longer than keys are */
            assert_non_null(check(file, size));
        }
        memcpy(p, saved, sizeof saved);
        p[12] = (uint8_t)(p[12] - 2); /* a node less than the tree counts */
        assert_non_null(check(file, size));
        memcpy(p, saved, sizeof saved);
    }
    assert_true(branches > 0 && leaves > 5);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(whole_and_bent, make_directory, remove_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
