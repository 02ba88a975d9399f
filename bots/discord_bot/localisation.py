"""Names and descriptions of the commands in the languages of those who read them.

Discord shows them by the language of its own client; English stands in the code itself.
https://docs.discord.com/developers/interactions/application-commands#localization
"""

from collections.abc import Mapping
from typing import Any, Final

from discord import Locale
from discord.app_commands import TranslationContextTypes, Translator, locale_str

from bots.administration_wording import METHODS

LANGUAGES: Final[Mapping[Locale, int]] = {
    Locale.german: 0,
    Locale.spain_spanish: 1,
    Locale.latin_american_spanish: 1,
    Locale.french: 2,
}
"""The column of `TEXTS` for each."""

TEXTS: Final[Mapping[str, tuple[str, str, str]]] = {
    # Names: small letters, digits, "-" and "_", each once in a language.
    "ask": ("fragen", "preguntar", "demander"),
    "compare": ("vergleichen", "comparar", "comparer"),
    "documents": ("dokumente", "documentos", "documents"),
    "upload": ("hochladen", "subir", "ajouter"),
    "model": ("modell", "modelo", "modèle"),
    "settings": ("einstellungen", "ajustes", "paramètres"),
    "train": ("trainieren", "entrenar", "entraîner"),
    "promote": ("befördern", "promover", "promouvoir"),
    "rollback": ("zurückrollen", "revertir", "revenir"),
    "judge": ("beurteilen", "juzgar", "juger"),
    "status": ("status", "estado", "statut"),
    "forget-me": ("vergiss-mich", "olvídame", "oublie-moi"),
    "home": ("start", "inicio", "accueil"),
    "leaderboard": ("rangliste", "clasificación", "classement"),
    "help": ("hilfe", "ayuda", "aide"),
    "question": ("frage", "pregunta", "question"),
    "name": ("name", "nombre", "nom"),
    "file": ("datei", "archivo", "fichier"),
    "second": ("zweite", "segundo", "deuxième"),
    "third": ("dritte", "tercero", "troisième"),
    "method": ("methode", "método", "méthode"),
    "version": ("version", "versión", "version"),
    "part": ("bereich", "parte", "partie"),
    # Context menus.
    "Add to knowledge": (
        "Zum Wissen hinzufügen",
        "Añadir al conocimiento",
        "Ajouter aux connaissances",
    ),
    # Descriptions.
    "Ask a question about the documents here": (
        "Stelle eine Frage zu den Dokumenten hier",
        "Haz una pregunta sobre los documentos de aquí",
        "Pose une question sur les documents d'ici",
    ),
    "What you want to know": (
        "Was du wissen willst",
        "Lo que quieres saber",
        "Ce que tu veux savoir",
    ),
    "Get two answers to a question and choose the better one": (
        "Lass dir zwei Antworten geben und wähle die bessere",
        "Recibe dos respuestas a una pregunta y elige la mejor",
        "Obtiens deux réponses à une question et choisis la meilleure",
    ),
    "What is known here; choose a document to replace or remove it": (
        "Was hier bekannt ist; wähle ein Dokument, um es zu ersetzen oder zu entfernen",
        "Lo que se sabe aquí; elige un documento para reemplazarlo o quitarlo",
        "Ce qui est connu ici ; choisis un document pour le remplacer ou le retirer",
    ),
    "A part of a document's name": (
        "Ein Teil vom Namen eines Dokuments",
        "Una parte del nombre de un documento",
        "Une partie du nom d'un document",
    ),
    "Add files to what is known here; the same name replaces": (
        "Füge dem, was hier bekannt ist, Dateien hinzu; der gleiche Name ersetzt",
        "Añade archivos a lo que se sabe aquí; el mismo nombre reemplaza",
        "Ajoute des fichiers à ce qui est connu ici ; le même nom remplace",
    ),
    "A document": ("Ein Dokument", "Un documento", "Un document"),
    "Another document": ("Ein weiteres Dokument", "Otro documento", "Un autre document"),
    "A third document": ("Ein drittes Dokument", "Un tercer documento", "Un troisième document"),
    "List the models, or choose the one that answers in this channel": (
        "Zeige die Modelle oder wähle das, das in diesem Kanal antwortet",
        "Muestra los modelos o elige el que responde en este canal",
        "Montre les modèles ou choisis celui qui répond dans ce salon",
    ),
    "The model; “default” is the server's": (
        "Das Modell; „default“ ist das des Servers",
        "El modelo; «default» es el del servidor",
        "Le modèle ; « default » est celui du serveur",
    ),
    "How I behave in this channel or on this server": (
        "Wie ich mich in diesem Kanal oder auf diesem Server verhalte",
        "Cómo me comporto en este canal o en este servidor",
        "Comment je me comporte dans ce salon ou sur ce serveur",
    ),
    "Which settings; without a choice, this channel's": (
        "Welche Einstellungen; ohne Auswahl die dieses Kanals",
        "Qué ajustes; sin elección, los de este canal",
        "Quels paramètres ; sans choix, ceux de ce salon",
    ),
    "This channel": ("Dieser Kanal", "Este canal", "Ce salon"),
    "People of this channel": (
        "Leute dieses Kanals",
        "Personas de este canal",
        "Personnes de ce salon",
    ),
    "This server": ("Dieser Server", "Este servidor", "Ce serveur"),
    "Queue a training run": (
        "Reihe ein Training ein",
        "Pon un entrenamiento en cola",
        "Mets un entraînement en file d'attente",
    ),
    "How; without one, by the recipe of the settings": (
        "Wie; ohne Angabe nach dem Rezept der Einstellungen",
        "Cómo; sin él, según la receta de la configuración",
        "Comment ; sans elle, selon la recette de la configuration",
    ),
    "Let a trained model answer from now on": (
        "Lass ab jetzt ein trainiertes Modell antworten",
        "Haz que desde ahora responda un modelo entrenado",
        "Fais répondre un modèle entraîné à partir de maintenant",
    ),
    "Which; without one, the tried one or the newest candidate": (
        "Welche; ohne Angabe die erprobte oder der neueste Kandidat",
        "Cuál; sin ella, la que está a prueba o el candidato más nuevo",
        "Laquelle ; sans elle, celle à l'essai ou le candidat le plus récent",
    ),
    "Let an earlier model answer again": (
        "Lass wieder ein früheres Modell antworten",
        "Haz que vuelva a responder un modelo anterior",
        "Fais de nouveau répondre un modèle précédent",
    ),
    "Which, or “base”; without one, a trial ends, or the version before answers": (
        "Welche oder „base“; ohne Angabe endet eine Erprobung, oder die Version davor antwortet",
        "Cuál, o «base»; sin ella acaba una prueba, o responde la versión anterior",
        "Laquelle ou « base » ; sans elle, un essai finit, ou la version d'avant répond",
    ),
    "Let the gate look again at a version that it could not decide about": (
        "Lass noch einmal über eine Version entscheiden, die unentschieden blieb",
        "Haz que se juzgue otra vez una versión que quedó sin decidir",
        "Fais juger de nouveau une version restée indécise",
    ),
    "Which; without one, the newest undecided one": (
        "Welche; ohne Angabe die neueste unentschiedene",
        "Cuál; sin ella, la más nueva sin decidir",
        "Laquelle ; sans elle, la plus récente restée indécise",
    ),
    "Engine, documents, who answers, and training runs": (
        "Sprachmodell, Dokumente, wer antwortet, und Trainings",
        "Motor, documentos, quién responde y entrenamientos",
        "Moteur, documents, qui répond, et entraînements",
    ),
    "Delete everything that is stored of you, for good": (
        "Lösche alles, was von dir gespeichert ist, endgültig",
        "Borra para siempre todo lo que hay guardado sobre ti",
        "Efface pour toujours tout ce qui est enregistré sur toi",
    ),
    "Which model people prefer here": (
        "Welches Modell die Leute hier vorziehen",
        "Qué modelo prefiere la gente de aquí",
        "Quel modèle les gens préfèrent ici",
    ),
    "Your votes, your consent to training, what is known here": (
        "Deine Stimmen, deine Einwilligung zum Training, was hier bekannt ist",
        "Tus votos, tu consentimiento al entrenamiento, lo que se sabe aquí",
        "Tes votes, ton accord pour l'entraînement, ce qui est connu ici",
    ),
    "What I can do": ("Was ich kann", "Lo que sé hacer", "Ce que je sais faire"),
    # The names of methods are the same everywhere.
    **{method: (method, method, method) for method in METHODS},
}
"""English, then German, Spanish and French."""


class Languages(Translator):
    """Translates the commands when they are told to Discord."""

    async def translate(
        self, string: locale_str, locale: Locale, context: TranslationContextTypes
    ) -> str | None:
        """The text in a language; None where Discord is to show the English one."""
        column = LANGUAGES.get(locale)
        texts: Any = TEXTS.get(string.message)
        return None if column is None or texts is None else str(texts[column])
