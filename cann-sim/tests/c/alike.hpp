// Whether two types pass the same bits across the C boundary: pointers by what they point to as far as both say,
// enumerations as integers of their size, structs by size (their fields are compared one by one elsewhere).
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdbool>
#include <tuple>
#include <type_traits>

template <class T, class = void>
struct bytes_of {
    static constexpr size_t value = 0; // incomplete
};
template <class T>
struct bytes_of<T, std::void_t<decltype(sizeof(T))>> {
    static constexpr size_t value = sizeof(T);
};

template <class T>
constexpr bool is_opaque = std::is_void_v<T> || std::is_function_v<T>;

template <class A, class B>
constexpr bool alike() {
    if constexpr (std::is_void_v<A> || std::is_void_v<B>) {
        return std::is_void_v<A> && std::is_void_v<B>;
    } else if constexpr (std::is_pointer_v<A> && std::is_pointer_v<B>) {
        using X = std::remove_cv_t<std::remove_pointer_t<A>>;
        using Y = std::remove_cv_t<std::remove_pointer_t<B>>;
        if constexpr (is_opaque<X> || is_opaque<Y>) return true;
        else if constexpr (bytes_of<X>::value == 0 || bytes_of<Y>::value == 0) return true;
        else return sizeof(X) == sizeof(Y);
    } else if constexpr (std::is_pointer_v<A> || std::is_pointer_v<B>) {
        return false;
    } else if constexpr (std::is_class_v<A> || std::is_class_v<B>) {
        return sizeof(A) == sizeof(B);
    } else if constexpr (std::is_floating_point_v<A> || std::is_floating_point_v<B>) {
        return std::is_same_v<A, B>;
    } else if constexpr (std::is_enum_v<A> || std::is_enum_v<B>) {
        return sizeof(A) == sizeof(B);
    } else {
        return sizeof(A) == sizeof(B) && std::is_signed_v<A> == std::is_signed_v<B>;
    }
}

template <class A, class B, size_t... I>
constexpr bool all_alike(std::index_sequence<I...>) {
    return (alike<std::remove_cv_t<std::tuple_element_t<I, A>>,
                  std::remove_cv_t<std::tuple_element_t<I, B>>>() &&
            ...);
}

template <class A, class B>
struct call;
template <class R, class... A, class S, class... B>
struct call<R (*)(A...), S (*)(B...)> {
    static constexpr bool same() {
        if constexpr (sizeof...(A) != sizeof...(B)) return false;
        else
            return alike<R, S>() &&
                   all_alike<std::tuple<A...>, std::tuple<B...>>(std::index_sequence_for<A...>());
    }
};
