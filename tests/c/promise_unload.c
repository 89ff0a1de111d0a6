/* The engine's library opened, used, and closed with its threads alive: argument 1 is its path. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef void *(*create_t)(const char *, const char *, const char *, unsigned long long, int);
typedef void (*destroy_t)(void *);

static void *symbol(void *library, const char *name) {
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return found;
}

int main(int count, char **arguments) {
    if (count != 2) return 2;
    for (int round = 0; round < 5; round++) {
        void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        create_t create;
        destroy_t destroy;
        *(void **)&create = symbol(library, "createTransferEngine");
        *(void **)&destroy = symbol(library, "destroyTransferEngine");
        void *engine = create("P2PHANDSHAKE", "127.0.0.1", "", 0, 0);
        if (!engine) return 3;
        if (round % 2 == 0) destroy(engine); /* the others stay alive behind the closed library */
        if (dlclose(library) != 0) return 4;
    }
    /* Their listeners wake up now and then: code that is gone would be noticed. */
    struct timespec moment = {0, 300000000};
    nanosleep(&moment, NULL);
    return 5;
}
