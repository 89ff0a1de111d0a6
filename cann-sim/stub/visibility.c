/* Hides, when a stub library is loaded, the functions that the posed release does not have there.
 *
 * CANN_SIM_RELEASE ("8.5" unless set) chooses the release, CANN_SIM_HIDE (names, comma separated) hides more.
 * A hidden function has the value zero in the dynamic symbol table of this library's private copy, which the
 * dynamic linker treats as "not defined here". Programs that bind at load time (-z now) were bound before any
 * constructor ran and so still see the function; dlsym and lazy binding see the posed release.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <link.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct entry {
    const char *name;
    unsigned since;
    unsigned until;
};

static const struct entry entries[] = {
#include TABLE
};

extern ElfW(Dyn) _DYNAMIC[] __attribute__((visibility("hidden")));
extern const ElfW(Ehdr) __ehdr_start __attribute__((visibility("hidden")));

/* In libcann_sim.so, which is initialised before this library: the settings, from the environment or a file. */
extern unsigned cann_sim_posed_release(void);
extern const char *cann_sim_hidden_names(void);

static int listed(const char *list, const char *name) {
    size_t length = strlen(name);
    while (list != NULL && *list != '\0') {
        size_t item = strcspn(list, ",");
        if (item == length && memcmp(list, name, length) == 0) {
            return 1;
        }
        list += item;
        list += *list == ',';
    }
    return 0;
}

static int hidden(const char *name, unsigned release, const char *list) {
    for (size_t i = 0; i < sizeof entries / sizeof entries[0]; i++) {
        if (strcmp(entries[i].name, name) == 0) {
            return release < entries[i].since || release > entries[i].until || listed(list, name);
        }
    }
    return 0;
}

/* glibc stores some of the dynamic section's pointers relocated, others not; both forms are accepted. */
static uintptr_t address(uintptr_t value) {
    uintptr_t base = (uintptr_t)&__ehdr_start;
    return value < base ? value + base : value;
}

__attribute__((constructor)) static void hide_missing(void) {
    ElfW(Sym) *symbols = NULL;
    const char *strings = NULL;
    const uint32_t *hash = NULL;
    for (const ElfW(Dyn) *item = _DYNAMIC; item->d_tag != DT_NULL; item++) {
        switch (item->d_tag) {
        case DT_SYMTAB: symbols = (ElfW(Sym) *)address(item->d_un.d_ptr); break;
        case DT_STRTAB: strings = (const char *)address(item->d_un.d_ptr); break;
        case DT_HASH: hash = (const uint32_t *)address(item->d_un.d_ptr); break;
        default: break;
        }
    }
    if (symbols == NULL || strings == NULL || hash == NULL) {
        return;
    }
    uint32_t count = hash[1]; /* the number of chains is the number of symbols */
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)symbols & ~(page - 1);
    uintptr_t end = ((uintptr_t)(symbols + count) + page - 1) & ~(page - 1);
    if (mprotect((void *)first, end - first, PROT_READ | PROT_WRITE) != 0) {
        return;
    }
    unsigned release = cann_sim_posed_release();
    const char *list = cann_sim_hidden_names();
    for (uint32_t i = 1; i < count; i++) {
        if (symbols[i].st_shndx != SHN_UNDEF && hidden(strings + symbols[i].st_name, release, list)) {
            symbols[i].st_value = 0;
        }
    }
    mprotect((void *)first, end - first, PROT_READ);
}
