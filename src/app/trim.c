/* Gives back what only starting, or a reload, needed. Main thread, some time after that. */
#include "app/app.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Dynamic linking and the set-up of two dozen libraries touch pages of code and tables that are
 * never used again; they count as resident for ever. Segments that cannot be written hold nothing
 * but the file's bytes: dropped pages come back from the page cache when they are used. Writable
 * segments (relocated data among them) are left alone. */
static int drop_clean(struct dl_phdr_info *info, size_t size, void *data)
{
    uintptr_t page = *(const uintptr_t *)data;
    for (size_t i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || (h->p_flags & PF_W))
            continue;
        uintptr_t from = (info->dlpi_addr + h->p_vaddr) & ~(page - 1);
        uintptr_t to = (info->dlpi_addr + h->p_vaddr + h->p_filesz + page - 1) & ~(page - 1);
        madvise((void *)from, to - from, MADV_DONTNEED); /* NOLINT(performance-no-int-to-ptr) */
    }
    return 0;
}

void ml_app_trim(void)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    malloc_trim(0);
    dl_iterate_phdr(drop_clean, &page);
}
