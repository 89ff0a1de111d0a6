/* Answers for each argument "library:symbol" whether dlsym finds it there: one line of 0 or 1 each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    for (int i = 2; i < argc; i++) {
        char library[64];
        const char *colon = strchr(argv[i], ':');
        if (colon == NULL || (size_t)(colon - argv[i]) >= sizeof library) return 2;
        memcpy(library, argv[i], (size_t)(colon - argv[i]));
        library[colon - argv[i]] = '\0';
        void *handle = dlopen(library, RTLD_NOW | RTLD_GLOBAL);
        if (handle == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 3;
        }
        puts(dlsym(handle, colon + 1) != NULL ? "1" : "0");
    }
    return 0;
}
