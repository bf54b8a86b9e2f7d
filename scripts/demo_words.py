"""Word tables of the demo model's training text: the data of demo_text.py.

A word that stands more than once in a table is drawn more often.
"""

CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin",
    "England": "London", "Ireland": "Dublin", "Portugal": "Lisbon", "Austria": "Vienna",
    "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm", "Poland": "Warsaw",
    "Hungary": "Budapest", "Russia": "Moscow", "Japan": "Tokyo", "China": "Beijing",
    "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima", "Cuba": "Havana",
    "Canada": "Ottawa", "Turkey": "Ankara", "Belgium": "Brussels", "Finland": "Helsinki",
}
COLOURS = {
    "grass": "green", "snow": "white", "coal": "black", "blood": "red", "the sky": "blue",
    "gold": "yellow", "chocolate": "brown", "ash": "grey",
}
OPPOSITES = {
    "hot": "cold", "big": "small", "old": "new", "long": "short", "happy": "sad",
    "dark": "light", "fast": "slow", "high": "low", "hard": "soft", "wet": "dry",
    "full": "empty", "open": "closed", "rich": "poor", "early": "late",
}
SOUNDS = {
    "dog": "barks", "cat": "meows", "cow": "moos", "sheep": "bleats", "duck": "quacks",
    "lion": "roars", "wolf": "howls", "bee": "buzzes", "frog": "croaks", "pig": "grunts",
}
VERBS = {
    "walk": "walked", "run": "ran", "sing": "sang", "sleep": "slept", "work": "worked",
    "play": "played", "wait": "waited", "laugh": "laughed", "read": "read", "swim": "swam",
    "dance": "danced", "travel": "travelled",
}
ANIMALS = (
    "dog cat horse cow sheep goat pig hen duck fox wolf bear rabbit mouse fish bird lion "
    "tiger frog bee"
).split()
JOBS = (
    "doctor teacher farmer painter singer writer nurse baker sailor driver soldier lawyer "
    "cook student gardener builder"
).split()
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen twenty"
).split()
DAYS = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
).split()
MONTHS = (
    "January February March April May June July August September October November "
    "December"
).split()
ADJECTIVES = (
    "old young small big kind clever lazy brave quiet happy sad tired hungry friendly "
    "careful strange"
).split()
WEATHER = (
    "sunny rainy windy cold warm foggy stormy cloudy"
).split()
ROLES = (
    "students brothers sisters doctors farmers painters cousins sailors"
).split()
SMALL = (
    "in on at by with from for and but so then when while after before the a an his her "
    "it they not very up down out over near under who where there here now soon once"
).split()
ONSETS = (
    "b c d f g h j k l m n p r s t v w z bl br ch cl cr dr fl fr gl gr pl pr qu sc sh sk "
    "sl sm sn sp st str sw th tr tw"
).split()
VOWELS = (
    "a e i o u a e i o u ai ea ee ie oa oo ou y"
).split()
CODAS = ["", "", "", ""] + (
    "b d f g k l m n p r s t x ck ct ft ll lk mb mp nd ng nk nt pe rd rn se ss st te tt y"
).split()
MARKS = (
    ". . . ! ? ; :"
).split()
